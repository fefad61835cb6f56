/* Hosts that go to rest while others send: the door and the bed of tasker_rouse.
 * Two hosts, which look at the queue, lie down, and look no more until they are
 * roused; two senders, who may roll back.
 *
 *   (none)      a sender takes the door, shared, and then asks whether the bed is
 *               taken; a host listens, takes the bed, tries the door, and looks once
 *               more
 *   -DNODOOR    the sender takes no door
 *   -DASKFIRST  the sender asks for the bed before it has the door
 *   -DTRYFIRST  the host tries the door before it takes the bed
 *   -DNOLOOK    the host does not look again once it has tried the door
 *   -DLATE      the host listens only when it has looked again
 */
byte visible = 0;          /* messages that wait */
byte bed = 0;              /* who has it, shared */
byte door = 0;             /* likewise */
bool shut = false;         /* a host has the door */

bool listens[2], rests[2], roused[2];

inline notify() {
  if :: listens[0] -> roused[0] = true :: else fi;
  if :: listens[1] -> roused[1] = true :: else fi
}

proctype Sender(byte left) {
  bool has, taken;
end:
  do
  :: left > 0 ->
#if defined(ASKFIRST)
     taken = (bed > 0);
#endif
#if defined(NODOOR)
     has = true;
#else
     atomic { has = !shut; door = door + has };              /* it tries: nobody waits */
#endif
#if !defined(ASKFIRST)
     taken = (bed > 0);
#endif
     if
     :: atomic { visible++;                                  /* commit: message and notification at once */
          if :: taken || !has -> notify() :: else fi }
     :: skip                                                 /* rollback */
     fi;
#if !defined(NODOOR)
     atomic { door = door - has };                           /* locks go after the commit is seen */
#endif
     atomic { left--; has = false; taken = false }
  :: else -> break
  od
}

proctype Host(byte id) {
  bool had;
end:
  do
  :: atomic { visible > 0 -> visible = 0 }                   /* it looks, as ever */
  :: visible == 0 ->
#if !defined(LATE)
     listens[id] = true;
#endif
#if defined(TRYFIRST)
     atomic { had = (door == 0 && !shut); shut = shut || had };
     if :: had -> shut = false :: else fi;
     bed++;
#else
     bed++;
     atomic { had = (door == 0 && !shut); shut = shut || had };
     if :: had -> shut = false :: else fi;
#endif
     if
     :: had ->
        if
#if !defined(NOLOOK)
        :: atomic { visible > 0 -> visible = 0 }
        :: atomic { visible == 0 -> rests[id] = true };
#else
        :: rests[id] = true;
#endif
#if defined(LATE)
           listens[id] = true;
#endif
endrest:   roused[id];
           rests[id] = false
        fi
     :: else
     fi;
     bed--;
     atomic { listens[id] = false; roused[id] = false; had = false }
  od
}

init { atomic { run Host(0); run Host(1); run Sender(2); run Sender(2) } }

/* No host rests unroused while a message waits; and every message is found. */
ltl safe { [] !(visible > 0 && (rests[0] && !roused[0] || rests[1] && !roused[1])) }
ltl found { [] (visible > 0 -> <> (visible == 0)) }
