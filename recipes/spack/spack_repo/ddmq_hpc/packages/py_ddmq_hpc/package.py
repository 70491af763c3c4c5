# Not built with Spack yet; see README.md in recipes/. Its sources come from `spack develop`; of a release `version` has
# the `sha256` of the sdist, which `pypi` then finds.

from spack_repo.builtin.build_systems.python import PythonPackage

from spack.package import *


class PyDdmqHpc(PythonPackage):
    """A serverless message and task queue on the shared file system of a cluster: jobs on any node publish, pull and
    acknowledge messages with nothing but file operations that are right on NFS."""

    pypi = "ddmq-hpc/ddmq_hpc-0.1.0.tar.gz"

    license("MIT")

    version("0.1.0")

    variant("watch", default=False, description="`status --watch`, a live view")
    variant("report", default=False, description="`report`, a page with charts")

    with default_args(type="build"):
        depends_on("py-hatchling@1.25:")

    with default_args(type=("build", "run")):
        depends_on("python@3.9:")
        depends_on("py-click@8.1:")

    with default_args(type="run"):
        depends_on("py-pyyaml")
        depends_on("py-psutil")
        depends_on("py-filelock")
        depends_on("py-rich", when="+watch")
        depends_on("py-plotly@6:", when="+report")
        depends_on("py-jinja2@3:", when="+report")

    import_modules = ["ddmq_hpc", "ddmq_hpc.cli"]
