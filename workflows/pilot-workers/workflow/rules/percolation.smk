PER_CENT = range(config["lowest"], config["highest"] + 1)
DENSITIES = [f"{percent / 100:.2f}" for percent in PER_CENT]


# Many, and short. What a rule says here is what its jobs take of a pilot: threads of its slots, mem_mb of its memory. A
# pilot begins none that would take longer, by runtime (minutes), than its batch job has left.
rule simulate:
    input:
        script=workflow.source_path("../scripts/percolation.py"),
    output:
        "results/lattices/{density}/{seed}.json",
    log:
        "logs/simulate/{density}/{seed}.log",
    resources:
        mem_mb=100,
        runtime=5,
    params:
        size=config["size"],
    shell:
        "python {input.script} --size {params.size}"
        " {wildcards.density} {wildcards.seed} > {output} 2> {log}"


# A few that take two slots each.
rule summarise:
    input:
        lattices=expand(
            "results/lattices/{{density}}/{seed}.json",
            seed=range(1, config["lattices"] + 1),
        ),
        script=workflow.source_path("../scripts/percolation_summary.py"),
    output:
        "results/densities/{density}.json",
    log:
        "logs/summarise/{density}.log",
    threads: 2
    resources:
        mem_mb=300,
        runtime=10,
    params:
        resamples=config["resamples"],
    shell:
        "python {input.script} --processes {threads} --resamples {params.resamples}"
        " {input.lattices} > {output} 2> {log}"


# One: its memory and time are those of the profile's default-resources.
rule table:
    input:
        densities=expand("results/densities/{density}.json", density=DENSITIES),
        script=workflow.source_path("../scripts/percolation_table.py"),
    output:
        "results/table.tsv",
    log:
        "logs/table.log",
    shell:
        "python {input.script} {input.densities} > {output} 2> {log}"
