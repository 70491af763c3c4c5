# One job for each message of the queue.
rule exponent:
    input:
        script=workflow.source_path("../scripts/lyapunov.py"),
    output:
        "results/exponents/{task}.json",
    log:
        "logs/exponents/{task}.log",
    params:
        task=queue.body,
        steps=config["steps"],
    shell:
        "python {input.script} --steps {params.steps} {params.task[r]:q} > {output} 2> {log}"


# Once no more tasks come: all that was done so far, in this run and before.
rule table:
    input:
        queue.feed(),
        script=workflow.source_path("../scripts/exponents_table.py"),
    output:
        "results/table.tsv",
    log:
        "logs/table.log",
    shell:
        "python {input.script} results/exponents > {output} 2> {log}"
