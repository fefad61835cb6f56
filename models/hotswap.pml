/* The swap of a plugin while calls run. Generation 1 serves, generation 2 is to
 * take over; two callers, one of which may meet a handler that hangs; the
 * serving process may crash and is restarted. This is the protocol that the
 * route table and the leases on generations are made for.
 *
 *   (none)         a caller reads the route and counts itself in one step; the
 *                  route moves when the new process is ready; the drain has a
 *                  deadline, then what still runs is cancelled and runs again
 *   -DTWOSTEPS     the caller counts itself after it has read the route
 *   -DSWITCHFIRST  the route moves before the new process is ready
 *   -DNODEADLINE   the drain waits for as long as it takes
 */
mtype = { NONE, STARTING, READY, SERVING, DRAINING, GONE };

mtype generation[3];
byte route = 1;
byte leases[3];             /* calls on a generation */
byte crashes = 0;
bool hangs = false;
bool swapped = false, refused = false;
bool idle_kill = false;     /* generation 1 was ended because nobody used it */

byte done = 0;              /* calls that got their answer */
bool dead_call = false;     /* a call to a process that the host had ended as unused */

proctype Caller(byte id) {
  byte on = 0, tries = 0;
again:
#if defined(TWOSTEPS)
  on = route;
  leases[on]++;
#else
  atomic { generation[route] == SERVING -> on = route; leases[on]++ };
#endif
  if
  :: atomic { generation[on] == NONE || generation[on] == STARTING || (idle_kill && on == 1) ->
       dead_call = true; leases[on]-- }
  :: generation[on] == SERVING || generation[on] == DRAINING || generation[on] == READY ->
     if
     :: atomic { id == 0 && on == 1 && !hangs -> hangs = true };
        if
        :: atomic { generation[on] == GONE -> leases[on]-- }             /* ended with its process */
#if !defined(NODEADLINE)
        :: atomic { generation[on] != GONE -> leases[on]-- }             /* the step's timeout */
#endif
        fi
     :: atomic { generation[on] != GONE -> leases[on]--; done++ }; goto answered
     :: atomic { generation[on] == GONE -> leases[on]-- }                /* crashed, or cancelled: runs again */
     fi
  :: atomic { generation[on] == GONE && !(idle_kill && on == 1) -> leases[on]-- }
  fi;
  tries++;
  if :: tries < 4 -> goto again :: else fi;
answered: skip
}

proctype Swap() {
  generation[2] = STARTING;
#if defined(SWITCHFIRST)
  route = 2;
#endif
  if
  :: generation[2] = READY                                               /* handshake and self-test passed */
  :: atomic { generation[2] = GONE; refused = true }                     /* the old one goes on serving */
  fi;
  if
  :: refused
  :: else ->
     atomic { generation[2] = SERVING; route = 2; swapped = true;
       if :: generation[1] == SERVING -> generation[1] = DRAINING :: else fi };
     if
     :: leases[1] == 0 || generation[1] == GONE
#if !defined(NODEADLINE)
     :: leases[1] > 0 && generation[1] != GONE                           /* the deadline */
#endif
     fi;
     atomic { idle_kill = (leases[1] == 0); generation[1] = GONE }
  fi
}

proctype Supervisor() {
end:
  do
  :: atomic { crashes < 1 && generation[route] == SERVING -> crashes++; generation[route] = GONE };
     atomic { generation[route] == GONE -> generation[route] = SERVING }
  od
}

init { atomic { generation[1] = SERVING; run Caller(0); run Caller(1); run Swap(); run Supervisor() } }

ltl served  { [] (!dead_call) }
ltl answers { <> (done == 2) }
ltl settles { <> ((swapped && generation[1] == GONE) || refused) }
ltl keeps   { [] ((refused && crashes == 0) -> generation[1] == SERVING) }
