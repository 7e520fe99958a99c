"""Run the faults and print the table: python3 -m tests.faults [NAME ...]"""

from __future__ import annotations

import argparse
import logging
import sys

from imagebus import cli

from . import faults
from .ledger import HEADING
from .rig import Rig

ALL = (
    (faults.repliers_killed_at_every_point, ()),
    (faults.repliers_killed_at_every_point, ("--guarantee", "exactly-once")),
    (faults.repliers_stopped_and_started, ()),
    (faults.rebalance_storm, ()),
    (faults.rebalance_storm, ("--guarantee", "exactly-once")),
    (faults.replier_frozen_beyond_its_session, ()),
    (faults.model_slower_than_max_poll_interval, ()),
    (faults.brokers_killed_in_turn, ()),
    (faults.brokers_killed_in_turn, ("--guarantee", "exactly-once")),
    (faults.leader_frozen, ()),
    (faults.one_partition_of_the_replies_takes_no_writes, ()),
    (faults.two_of_three_brokers_killed, ()),
    (faults.all_brokers_killed, ()),
    (faults.requestor_killed_and_restarted, ()),
    (faults.backlog_at_ten_times_the_speed, ()),
    (faults.outage_under_open_loop, ()),
)


def main() -> int:
    """0 when the promise was kept in every row."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults to run; all by default")
    names = {name.replace("-", "_") for name in parser.parse_args().names}
    if unknown := names - {fault.__name__ for fault, _ in ALL}:
        parser.error(f"no fault is called {' or '.join(sorted(unknown))}")
    cli.configure_logging(verbose=False)
    logging.getLogger("imagebus.transports").setLevel(
        logging.ERROR
    )  # what the faults do to the load is no news
    broken = 0
    print(HEADING, flush=True)
    with Rig() as rig:
        for fault, options in ALL:
            if not names or fault.__name__ in names:
                verdict = rig.run(fault, options)
                broken += bool(verdict.problems)
                print(verdict, flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
