/* One step from the queue to its result, on several hosts.
 *
 * A host claims the step by taking its message (tasker_claim_steps deletes it in
 * the transaction that leases the step), runs it, and settles it or hands it
 * back. Hosts are killed, and are taken for dead while they live; then the sweep
 * gives their steps to others, and what they still answer must not count. A
 * message may vanish: the sweep sends another, sometimes one too many. An
 * operator may reset the step's attempts while it runs.
 *
 *   (none)       fence by the lease id of the claim, one transaction per move
 *   -DNOFENCE    the result is accepted in whatever claim the step is
 *   -DATTEMPT    the fence is the number of attempts, which an operator resets
 *   -DTWOTX      the result and the successor's message are two transactions
 *   -DNOSWEEP    nobody looks after dead hosts and lost messages
 *   -DGIVEBLIND  the sweep gives a step back without looking at it again
 */
#ifndef MAXCRASH
#define MAXCRASH 1
#endif
#ifndef MAXZOMBIE
#define MAXZOMBIE 1     /* hosts taken for dead while they live */
#endif
#define MAXLOST  1      /* messages that vanish                 */
#define MAXBACK  1      /* steps handed back by a draining host */
#define NH       2      /* hosts at a time                      */
#define NID      8      /* host ids: a host that comes back has a new one; 0 is nobody */

mtype = { ENQUEUED, IN_PROGRESS, COMPLETE };

/* The database. */
mtype state = ENQUEUED;
byte messages = 1;        /* on the queue                        */
byte lease = 0;           /* the current claim's lease id        */
byte lease_host = 0;
byte attempts = 0;        /* counts claims here; may be reset    */
bool dead[NID];           /* tasker_hosts.state = 'dead'         */

/* The world: random ids never repeat. */
byte leases = 0, hosts = 0;
byte crashes = 0, zombies = 0, lost = 0, back = 0, resets = 0;
bool gone[NID];           /* the process is no more              */

/* What must hold. */
byte accepted = 0;        /* results recorded                    */
byte successor = 0;       /* messages for the next step          */
bool stale = false;       /* a result was recorded that came from another claim */

#if defined(NOFENCE)
#define MINE (state == IN_PROGRESS)
#elif defined(ATTEMPT)
#define MINE (state == IN_PROGRESS && attempts == my_attempt)
#else
#define MINE (state == IN_PROGRESS && lease == my_lease)
#endif

proctype Host() {
  byte me, my_lease, my_attempt;
  atomic { hosts++; me = hosts }                    /* tasker_register_host */
end:
  do
  :: atomic { messages > 0 && !dead[me] ->          /* tasker_claim_steps */
       messages--;
       if
       :: state == ENQUEUED ->
            state = IN_PROGRESS; leases++; lease = leases; lease_host = me; attempts++;
            my_lease = lease; my_attempt = attempts
       :: else -> my_lease = 0                      /* a hint too many: dropped */
       fi };
     if
     :: my_lease == 0
     :: my_lease != 0 ->
        if
        :: atomic { crashes < MAXCRASH -> crashes++; gone[me] = true;     /* kill -9, then a new host */
             hosts++; me = hosts }
#if defined(TWOTX)
        :: atomic { MINE -> state = COMPLETE; accepted++ };
           if
           :: atomic { crashes < MAXCRASH -> crashes++; gone[me] = true; hosts++; me = hosts }
           :: successor++
           fi
#else
        :: atomic { MINE ->                                               /* tasker_settle_steps */
             if :: my_lease != lease -> stale = true :: else fi;
             state = COMPLETE; accepted++; successor++ }
#endif
        :: atomic { MINE && back < MAXBACK ->                             /* … with outcome released */
             if :: my_lease != lease -> stale = true :: else fi;
             back++; state = ENQUEUED; lease = 0; lease_host = 0; messages++ }
        :: atomic { !(MINE) -> skip }                                     /* stale_lease: nothing changes */
        fi
     fi;
     atomic { my_lease = 0; my_attempt = 0 }
  :: atomic { dead[me] -> hosts++; me = hosts }     /* tasker_heartbeat said so: register anew */
  od
}

#if !defined(NOSWEEP)
proctype Sweep() {
  byte h; bool held;
end:
  do
  :: atomic { state == IN_PROGRESS && gone[lease_host] && !dead[lease_host] -> dead[lease_host] = true }
  :: atomic { state == IN_PROGRESS && !gone[lease_host] && !dead[lease_host] && zombies < MAXZOMBIE ->
       zombies++; dead[lease_host] = true }         /* tasker_sweep_hosts: alive_until has passed */
  :: atomic { state == IN_PROGRESS && dead[lease_host] -> h = lease_host; held = true };
     /* tasker_release_host_steps found the row and waits for its lock */
     atomic {
       if
#if defined(GIVEBLIND)
       :: held -> state = ENQUEUED; lease = 0; lease_host = 0; messages++
#else
       :: state == IN_PROGRESS && lease_host == h -> state = ENQUEUED; lease = 0; lease_host = 0; messages++
#endif
       :: else
       fi;
       h = 0; held = false }
  :: atomic { state == ENQUEUED && messages == 0 -> messages++ }          /* tasker_sweep_messages */
  od
}
#endif

proctype Mishap() {
end:
  do
  :: atomic { messages > 0 && lost < MAXLOST -> lost++; messages-- }      /* someone purges the queue */
  :: atomic { state == ENQUEUED && messages == 1 && resets == 0 -> resets = 1; messages++ }  /* a second hint */
  :: atomic { state == IN_PROGRESS && resets < 2 -> resets = 2; attempts = 0 }               /* an operator resets */
  od
}

init {
  atomic {
    run Host(); run Host();
#if !defined(NOSWEEP)
    run Sweep();
#endif
    run Mishap()
  }
}

ltl safe { [] (accepted <= 1 && successor <= 1 && !stale) }
ltl live { <> (state == COMPLETE && successor == 1) }
