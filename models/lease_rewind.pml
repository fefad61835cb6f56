/* A failover that loses commits, or a backup that is restored: the database goes
 * back to an earlier state while hosts still work under claims it has forgotten.
 *
 *   (none)     the fence is a random lease id: what the database forgot, it will
 *              never hand out again
 *   -DCOUNTER  the fence is the step's lease number, which goes back with the row
 */
mtype = { ENQUEUED, IN_PROGRESS, COMPLETE };

/* The row, and the row as the standby has it. */
mtype state = ENQUEUED, s_state = ENQUEUED;
byte lease_no = 0, s_lease_no = 0;
byte lease_id = 0, s_lease_id = 0;

byte drawn = 0;            /* lease ids drawn: the world's randomness does not go back */
byte requeued = 0;
bool foreign = false;      /* a result was recorded that came from another claim */

#define MAXCLAIMS 5

#if defined(COUNTER)
#define MINE (state == IN_PROGRESS && lease_no == my_no)
#else
#define MINE (state == IN_PROGRESS && lease_id == my_id)
#endif

proctype Host() {
  byte my_no = 0, my_id = 0;
end:
  do
  :: atomic { state == ENQUEUED && drawn < MAXCLAIMS ->          /* tasker_claim_steps */
       state = IN_PROGRESS; lease_no++; drawn++; lease_id = drawn;
       my_no = lease_no; my_id = lease_id };
     if
     :: atomic { MINE ->                                         /* tasker_settle_steps */
          if :: my_id != lease_id -> foreign = true :: else fi;
          state = COMPLETE }
     :: atomic { !(MINE) -> skip }                               /* stale_lease */
     fi;
     atomic { my_no = 0; my_id = 0 }
  od
}

proctype Failover() {
  atomic { s_state = state; s_lease_no = lease_no; s_lease_id = lease_id };   /* the last commit that arrived */
  atomic { state = s_state; lease_no = s_lease_no; lease_id = s_lease_id }    /* the standby takes over */
}

proctype Sweep() {
end:
  do
  :: atomic { state == IN_PROGRESS && requeued < 2 -> requeued++; state = ENQUEUED; lease_id = 0 }
  od
}

init { atomic { run Host(); run Host(); run Failover(); run Sweep() } }

ltl own { [] (!foreign) }
