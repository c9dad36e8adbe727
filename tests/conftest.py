"""What holds for every test process, of which several may run beside one another."""

import os

# Read by torch and NumPy when they are first imported, and passed on to all that tests start. Each
# process computes on one core, and threads that wait do not spin: on a busy machine, spinning costs
# more than the networks of these tests, which are small.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Ray's workers give way to all else by default; beside another test process they would hardly run.
os.environ.setdefault("RAY_worker_niceness", "0")
