"""The scheduler's invariants as assertions: a server and a Lead that look at them at each step, and note what is violated.

Use them by `checks` of test_scheduler.py; `server.violations` has to be empty at the end.
"""

import threading
from pathlib import Path

import watchdog_app


class CheckedLock:
    """The Lead's lock; before it is released, what it protects is looked at."""

    def __init__(self, lead):
        self.lead, self.lock = lead, threading.Lock()

    def __enter__(self):
        self.lock.acquire()

    def __exit__(self, *exc_info):
        try:
            self.lead.verify()
        finally:
            self.lock.release()


def checked_lead(lead_class):
    """Make a class of Leads that check themselves.

    They keep books of their own: `owners` (jobs that are apart and not queued -> their threads), `live` (threads that have not ended), and the
    jobs that run.
    """

    class CheckedLead(lead_class):
        def __init__(self, most, serve, work, clock):
            self.local, self.violations = threading.local(), []
            self.owners, self.live, self.running = {}, set(), {}
            super().__init__(most, serve, self.work_on, clock)
            self.work_apart, self.lock = work, CheckedLock(self)

        @property
        def me(self):
            """The lock by which the Lead knows this thread; None for one that is not its own."""
            return getattr(self.local, "me", None)

        def check(self, holds, what):
            if not holds and len(self.violations) < 20:
                self.violations.append(f"{threading.current_thread().name}: {what}")

        def check_leads(self, what):
            self.check(self.me is self.leader, f"a thread {what} without the lead")

        def verify(self):
            """Look at all that the lock protects, which the thread that calls this holds."""
            if self.workers < len(self.live):  # one at a time, and itself
                self.live.discard(self.me)
            self.check(self.workers == len(self.live), f"{self.workers} workers are counted, {len(self.live)} live")
            self.check(self.stopped or self.leader in self.live, "the leader has ended")
            self.check(len(set(self.parked)) == len(self.parked), "a thread is parked twice")
            for worker in self.parked:
                self.check(worker.locked() and worker in self.live, "a parked thread is woken, or has ended")
                self.check(worker is not self.leader, "the leader is parked")
                self.check(worker not in self.running.values(), "a parked thread runs a call")
            for job in self.queue:
                self.check(job.apart and job not in self.owners, "a queued connection is in the selector, or owned")
            if (job := self.current) is not None:
                self.check(not job.apart and job not in self.owners, "the connection in place is apart")
                self.check(self.running.get(job, self.leader) is self.leader, "another thread runs what is in place")

        def _new_thread(self):
            worker = super()._new_thread()
            if worker is not None:
                self.live.add(worker)
            return worker

        def _hand_over(self, job):
            self.owners[job] = self.leader  # first: its thread looks without the lock
            handed_over = super()._hand_over(job)
            if not handed_over:
                del self.owners[job]
            return handed_over

        def _work(self, me):
            self.local.me = me
            super()._work(me)
            self.check(me not in self.live, "a thread has ended that is counted")

        def work_on(self, job):
            self.owners[job] = self.me
            self.work_apart(job)

        def give_back(self, job):
            self.check(self.owners.pop(job, None) is self.me, "a thread gives back what it does not own")
            super().give_back(job)

        def run_in_place(self, job, call):
            self.check_leads("runs a call in place")
            return super().run_in_place(job, call)

    return CheckedLead


def checked_server(server_class, lead_class):
    """Make a class of servers, and of Leads, that check themselves."""

    class CheckedServer(server_class):
        def __init__(self, *arguments):
            kept, watchdog_app.Lead = watchdog_app.Lead, checked_lead(lead_class)
            try:
                super().__init__(*arguments)
            finally:
                watchdog_app.Lead = kept
            self.violations, self.polling, self.leaving = self.lead.violations, 0, []

        def _poll(self):
            self.lead.check_leads("polls")
            self.polling += 1
            self.lead.check(self.polling == 1, "two threads poll")
            self.verify_selector()
            super()._poll()
            self.polling -= 1

        def verify_selector(self):
            """Compare what the kernel watches with what the server takes it to watch."""
            watched = {}
            for line in Path(f"/proc/self/fdinfo/{self.epoll.fileno()}").read_text().splitlines():
                if line.startswith("tfd:"):
                    _, fd, _, events, *_ = line.split()
                    watched[int(fd)] = int(events, 16) & (watchdog_app.IN | watchdog_app.OUT)
            polled = {fd: events for fd, events in watched.items() if fd not in self.callbacks}
            masks = {fd: connection.watched for fd, connection in self.connections.items() if connection.watched}
            self.lead.check(polled == masks, f"the selector watches {polled}, not {masks}")
            for connection in self.connections.values():
                is_there = connection.watched or connection.apart or connection in self.leaving
                self.lead.check(is_there or connection.fd in self.inbox.items, "a connection is nowhere")

        def _own(self, connection):
            self.leaving.append(connection)  # of two threads that leave it, the second may begin before the first ends
            super()._own(connection)
            self.leaving.remove(connection)

        def _settle(self, connection):
            self.lead.check_leads("settles a connection")
            super()._settle(connection)

        def _close(self, connection):
            self.lead.check_leads("closes a connection")
            super()._close(connection)

        def _set_aside(self, connection):
            self.lead.check_leads("sets a connection aside")
            super()._set_aside(connection)

        def _run(self, connection, began):
            lead, request = self.lead, connection.request
            # In this order: the monitor may take the lead meanwhile, and a parked thread for it
            parked, owner = bool(lead.parked or lead.stopped), lead.owners.get(connection, lead.leader)
            in_place = lead.current is connection and lead.leader is lead.me
            lead.check(owner is lead.me, "a thread runs what it does not own")
            lead.check(connection not in lead.running, "two exchanges on one connection")
            needs = in_place and not request.refusal and not self.at_once(request.target)
            lead.check(parked or not needs, "a call runs in place, and no thread is parked")
            lead.running[connection] = lead.me
            super()._run(connection, began)
            lead.running.pop(connection, None)

    return CheckedServer
