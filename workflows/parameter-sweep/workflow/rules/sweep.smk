rule grid:
    input:
        script=workflow.source_path("../scripts/sweep_grid.py"),
    output:
        "results/grid.csv",
    log:
        "logs/grid.log",
    params:
        r0=config["grid"]["r0"],
        seed=config["grid"]["seed"],
    shell:
        "python {input.script} --r0 {params.r0} --seed {params.seed} > {output} 2> {log}"


# Should this be killed in between, the next run publishes all again: a run that is done twice gives the same result.
rule publish:
    input:
        "results/grid.csv",
    output:
        touch("results/published"),
    log:
        "logs/publish.log",
    params:
        queue=QUEUE,
    shell:
        "(ddmq-hpc create -f {params.queue} && ddmq-hpc publish {params.queue} --from-csv {input}) > {log} 2>&1"


# A pilot job: it takes tasks until none are left. On a cluster each of them is one batch job, for all of its tasks.
rule work:
    input:
        "results/published",
        script=workflow.source_path("../scripts/sir.py"),
    output:
        touch("results/workers/{worker}"),
    log:
        "logs/work/{worker}.log",
    threads: config["slots"]
    params:
        queue=QUEUE,
        population=config["population"],
    shell:
        "ddmq-hpc work {params.queue} -j {threads} --until drained --"
        " python {input.script} --population {params.population} --results results/runs"
        " {{r0}} {{seed}} > {log} 2>&1"


rule table:
    input:
        expand("results/workers/{worker}", worker=range(config["workers"])),
        grid="results/grid.csv",
        script=workflow.source_path("../scripts/sweep_table.py"),
    output:
        "results/table.tsv",
    log:
        "logs/table.log",
    shell:
        "python {input.script} {input.grid} results/runs > {output} 2> {log}"
