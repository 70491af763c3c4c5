"""`python -m ddmq_hpc` is the command `ddmq-hpc`."""

from ddmq_hpc.cli.main import main

main()
