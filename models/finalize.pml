/* The end of a task: exactly once, never early, with the right verdict.
 *
 * All steps here are sinks, steps without children, and run at the same time.
 * Settling is a transaction of several statements under READ COMMITTED: what it
 * writes is seen by others when it commits, row locks are held until then, and
 * a statement sees what was committed when it began (tasker_settle_steps,
 * tasker_bury_step, tasker_conclude_task). In the plain variant two processes
 * settle step 0: a result that was sent twice. A transaction may be rolled back
 * and tried again.
 *
 * With -DLEFT somebody settles one more step by hand, past our functions: nobody
 * counts it down and nobody concludes. Two finalizers then compete for the claim
 * (claim_task_for_finalization, tasker_apply_finalization); they die, or outlive
 * their claim.
 *
 *   (none)            the counter, the doom mark and the look under the task's lock
 *   -DTHREE           … with three steps, each settled once
 *   -DLEFT            … and the claim for what is left
 *   -DLOOK            no counter and no lock: "is any other step unfinished?"
 *   -DNODOOM          a failure does not mark the steps that still run
 *   -DTHREE -DEARLYLOOK  the look takes its snapshot before the task's lock: two
 *                     steps that a third one doomed miss each other
 *   -DTHREE -DUNORDERED   a failure locks its own row first, then the others:
 *                     two failures lock each other out
 *   -DLEFT -DNOTOKEN  the finalizer writes what it decided, without its lease
 *   -DLEFT -DNOCLAIMEXPIRY  a claim holds for ever
 */
#if defined(LEFT) || defined(THREE)
#define NS 3
#else
#define NS 2
#endif
#ifndef MAXCRASH
#define MAXCRASH 1
#endif
#ifndef MAXEXPIRY
#define MAXEXPIRY 1      /* claims that end while their holder works */
#endif

#if !defined(NODOOM) && !defined(LOOK)
#define DOOMS
#endif

#define IN_PROGRESS 0
#define COMPLETE    1
#define FAILED      2

/* The database, as committed. */
byte step[NS];           /* states of the steps     */
bool doomed[NS];
byte open_sinks = NS;
byte task = IN_PROGRESS;
byte holder = 0;         /* lease of the finalization claim, 0: none */

/* Locks, by process. */
byte row[NS];            /* who holds a step's row  */
byte taskrow = 0;
byte waits[12];          /* the row + 1 that a process waits for */

/* The world. */
byte verdict[NS];
byte claims = 0, crashes = 0, expiries = 0, tries = 0;
byte working[2];         /* the lease a live finalizer works under */

/* What must hold. */
byte finals = 0;
bool early = false, wrong = false, deadlock = false;

#define MOVES(i) (step[i] == IN_PROGRESS)
#if NS == 3
#define ANYMOVES (MOVES(0) || MOVES(1) || MOVES(2))
#define ALLDONE  (step[0] == COMPLETE && step[1] == COMPLETE && step[2] == COMPLETE)
#else
#define ANYMOVES (MOVES(0) || MOVES(1))
#define ALLDONE  (step[0] == COMPLETE && step[1] == COMPLETE)
#endif

/* The transaction of the process that waits for row o waits, in turn, for ours. */
#define DEADLOCK(o) (row[o] != 0 && waits[row[o]] != 0 && row[waits[row[o]] - 1] == _pid)

/* finish is the write that ends the task; it judges itself. */
inline finish(state) {
  finals++;
  if :: ANYMOVES -> early = true :: else fi;
  if :: (state == COMPLETE) != ALLDONE -> wrong = true :: else fi;
  task = state
}

/* lock_row waits for a row's lock; the victim of a deadlock rolls back. */
inline lock_row(r) {
  waits[_pid] = r + 1;
  if
  :: atomic { row[r] == 0 -> row[r] = _pid; waits[_pid] = 0 }
  :: atomic { DEADLOCK(r) -> deadlock = true; waits[_pid] = 0; goto rollback }
  fi
}

inline unlock_all() {
  for (k : 0 .. NS - 1) { if :: row[k] == _pid -> row[k] = 0 :: else fi };
  if :: taskrow == _pid -> taskrow = 0 :: else fi;
  k = 0
}

proctype Settler(byte s) {
  byte o = 0, k = 0;
  byte count;            /* open_sinks as this transaction writes it */
  byte next;             /* the task's state as it writes it         */
  bool moving = false, satisfied = true, was_doomed = false, marks[NS];

begin:
#if defined(DOOMS) && !defined(UNORDERED)
  /* A failure concerns all steps that still run: it locks their rows first, in
     the order of their numbers, its own among them. */
  o = 0;
  do
  :: o < NS ->
     if
     :: o == s || verdict[s] != COMPLETE && MOVES(o) -> lock_row(o)
     :: else
     fi;
     o++
  :: else -> break
  od;
#else
  lock_row(s);
#endif
  if
  :: atomic { step[s] != IN_PROGRESS -> unlock_all() }; goto settled     /* already_recorded */
  :: else
  fi;
  was_doomed = doomed[s];

#if defined(DOOMS)
  if                                                /* tasker_bury_step marks what still runs */
  :: verdict[s] == COMPLETE
  :: else ->
     o = 0;
     do
     :: o < NS ->
        if
        :: o == s || !MOVES(o) || doomed[o]
        :: else ->
#if defined(UNORDERED)
           lock_row(o);
#endif
           marks[o] = (MOVES(o) && !doomed[o])
        fi;
        o++
     :: else -> break
     od
  fi;
#endif

#if defined(EARLYLOOK)
  atomic { moving = false; satisfied = (verdict[s] == COMPLETE);
    for (k : 0 .. NS - 1) {
      if :: k != s -> moving = moving || MOVES(k); satisfied = satisfied && step[k] == COMPLETE :: else fi };
    k = 0 };
#endif
#if !defined(LOOK)
  atomic { taskrow == 0 -> taskrow = _pid };        /* the task's row, after all step rows */
#endif

  count = open_sinks; next = task;
#if !defined(LOOK)
  if
  :: verdict[s] == COMPLETE ->
     count--;
     if :: count == 0 && next == IN_PROGRESS -> next = COMPLETE :: else fi
  :: else
  fi;
#endif
  if                                                /* tasker_conclude_task */
#if defined(LOOK)
  :: next == IN_PROGRESS ->
#else
  :: next == IN_PROGRESS && (was_doomed || verdict[s] != COMPLETE) ->
#endif
#if !defined(EARLYLOOK)
     atomic { moving = false; satisfied = (verdict[s] == COMPLETE);      /* a fresh snapshot */
       for (k : 0 .. NS - 1) {
         if :: k != s -> moving = moving || MOVES(k); satisfied = satisfied && step[k] == COMPLETE :: else fi };
       k = 0 };
#endif
     if
     :: moving
     :: !moving && satisfied -> next = COMPLETE
     :: !moving && !satisfied -> next = FAILED
     fi
  :: else
  fi;

  if
  :: atomic { crashes < MAXCRASH -> crashes++ }; goto rollback           /* before COMMIT */
  :: atomic {                                                            /* COMMIT */
       step[s] = verdict[s]; open_sinks = count;
       for (k : 0 .. NS - 1) { if :: marks[k] -> doomed[k] = true :: else fi };
       if :: next != IN_PROGRESS && task == IN_PROGRESS -> finish(next) :: else fi;
       unlock_all() }
  fi;
  goto settled;

rollback:
  atomic {
    unlock_all();
    for (k : 0 .. NS - 1) { marks[k] = false };
    o = 0; k = 0; moving = false; satisfied = true; was_doomed = false };
  goto begin;

settled: skip
}

#if defined(LEFT)
/* Somebody with psql. */
proctype ByHand() {
  atomic { row[NS - 1] == 0 -> step[NS - 1] = verdict[NS - 1] }
}

proctype Finalizer(byte id) {
  byte mine = 0, decided = 0;
end:
  do
  :: atomic { task == IN_PROGRESS && holder == 0 && taskrow == 0 && (!ANYMOVES || tries < 1) ->
       if :: ANYMOVES -> tries++ :: else fi;        /* a caller from outside comes too soon */
       claims++; mine = claims; holder = mine; working[id] = mine;       /* claim_task_for_finalization */
       decided = (ALLDONE -> COMPLETE : FAILED) };
     if
     :: atomic { crashes < MAXCRASH -> crashes++; working[id] = 0 }
#if defined(NOTOKEN)
     :: atomic { taskrow == 0 -> finish(decided); holder = 0; working[id] = 0 }
#else
     :: atomic { taskrow == 0 && holder == mine ->                       /* tasker_apply_finalization */
          if
          :: task == IN_PROGRESS && !ANYMOVES -> finish((ALLDONE -> COMPLETE : FAILED))
          :: else
          fi;
          holder = 0; working[id] = 0 }                                  /* release_finalization_claim */
     :: atomic { taskrow == 0 && holder != mine -> working[id] = 0 }     /* no longer ours: nothing changes */
#endif
     fi;
     atomic { mine = 0; decided = 0 }
  od
}

proctype Clock() {
end:
  do
#if !defined(NOCLAIMEXPIRY)
  :: atomic { holder != 0 && working[0] != holder && working[1] != holder -> holder = 0 }
#endif
  :: atomic { holder != 0 && (working[0] == holder || working[1] == holder) && expiries < MAXEXPIRY ->
       expiries++; holder = 0 }
  od
}
#endif

init {
  byte i;
  atomic {
    for (i : 0 .. NS - 1) { if :: verdict[i] = COMPLETE :: verdict[i] = FAILED fi };
    run Settler(0); run Settler(1);
#if defined(THREE)
    run Settler(2);
#elif !defined(LEFT)
    run Settler(0);
#endif
#if defined(LEFT)
    run ByHand(); run Finalizer(0); run Finalizer(1); run Clock()
#endif
  }
}

ltl once { [] (finals <= 1 && !early && !wrong) }
ltl fin  { <> (task != IN_PROGRESS) }
ltl calm { [] (!deadlock) }
