/* One step and outside workers, whose leases end by time and not with a host.
 *
 * A worker claims the step (tasker_worker_claim), and while it runs its lease may
 * run out; a heartbeat that comes late extends it all the same, as long as nobody
 * has taken the step back. The sweep sees leases that have run out, waits for the
 * step's row, and gives the step back. Workers die at any moment.
 *
 *   (none)       the sweep looks again under the row's lock; fence by the lease id
 *   -DBLIND      the sweep gives back what it has seen, without a second look
 *   -DNOFENCE    an answer counts in whatever claim the step is
 *   -DNOEXPIRY   leases do not run out
 */
#ifndef MAXDEATH
#define MAXDEATH 2
#endif
#define MAXLATE 3       /* leases that run out while their worker lives */

mtype = { ENQUEUED, IN_PROGRESS, COMPLETE };

/* The database. */
mtype state = ENQUEUED;
byte messages = 1;
byte lease = 0;           /* the current claim's lease id; ids never repeat */
bool expired = false;     /* lease_until has passed */

byte leases = 0, deaths = 0, late = 0;
bool dead[10];            /* by lease: its worker is no more */

/* What must hold. */
byte accepted = 0;
bool stale = false;       /* an answer of another claim counted */
bool stolen = false;      /* a lease that had not run out was ended */

#if defined(NOFENCE)
#define MINE (state == IN_PROGRESS)
#else
#define MINE (state == IN_PROGRESS && lease == my_lease)
#endif

proctype Worker() {
  byte my_lease;
end:
  do
  :: atomic { messages > 0 ->                         /* tasker_worker_claim */
       messages--;
       if
       :: state == ENQUEUED -> state = IN_PROGRESS; leases++; lease = leases; expired = false; my_lease = lease
       :: else -> my_lease = 0
       fi };
     do
     :: my_lease == 0 -> break
     :: atomic { my_lease != 0 && MINE && expired -> expired = false }    /* tasker_worker_heartbeat */
     :: atomic { my_lease != 0 && deaths < MAXDEATH -> deaths++; dead[my_lease] = true; my_lease = 0; break }  /* kill -9, started again */
     :: atomic { my_lease != 0 && MINE ->                                 /* tasker_worker_settle */
          if :: my_lease != lease -> stale = true :: else fi;
          state = COMPLETE; accepted++; my_lease = 0; break }
     :: atomic { my_lease != 0 && !(MINE) -> my_lease = 0; break }        /* stale_lease: it stops */
     od
  od
}

#if !defined(NOEXPIRY)
proctype Clock() {
end:
  do
  :: atomic { state == IN_PROGRESS && !expired && dead[lease] -> expired = true }
  :: atomic { state == IN_PROGRESS && !expired && !dead[lease] && late < MAXLATE -> late++; expired = true }
  od
}
#endif

proctype Sweep() {                                    /* tasker_sweep_worker_leases */
  byte seen;
end:
  do
  :: atomic { state == IN_PROGRESS && expired -> seen = lease };
     atomic {
       if
#if defined(BLIND)
       :: state == IN_PROGRESS && lease == seen ->
#else
       :: state == IN_PROGRESS && lease == seen && expired ->
#endif
            if :: !expired -> stolen = true :: else fi;
            state = ENQUEUED; lease = 0; expired = false; messages++
       :: else
       fi;
       seen = 0 }
  od
}

init {
  atomic {
    run Worker(); run Worker(); run Sweep();
#if !defined(NOEXPIRY)
    run Clock()
#endif
  }
}

ltl safe { [] (accepted <= 1 && !stale && !stolen) }
ltl live { <> (state == COMPLETE) }
