"""The command `ddmq-hpc`: parse, call one function of the core, print."""
