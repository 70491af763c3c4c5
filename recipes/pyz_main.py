"""The `__main__` of ddmq-hpc.pyz: takes modules from bytecode that is read once, where it is this Python's."""

import sys

if sys.version_info < (3, 9):  # noqa: UP036
    sys.exit("ddmq-hpc needs Python 3.9 or later: python3.x " + sys.argv[0])

import marshal
import zlib
from importlib.machinery import ModuleSpec


class Bytecode:
    """Finds and loads the modules of this file. zipimport opens it and unpacks a module twice for each, once to learn
    the module's file name, and an open is a request on a network file system."""

    def __init__(self, archive, member):
        self.get_data, self.get_source = archive.get_data, archive.get_source
        self._place, self._member = archive.archive, member
        self._modules, self._others = marshal.loads(archive.get_data(member))

    def find_spec(self, name, path=None, target=None):
        if name in self._others:
            self._modules.update(marshal.loads(self.get_data(f"{self._member}-more")))
            self._others = ()
        if name not in self._modules:
            return None
        file, is_package, _ = self._modules[name]
        spec = ModuleSpec(name, self, origin=f"{self._place}/{file}", is_package=is_package)
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations.append(spec.origin.rpartition("/")[0])
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(marshal.loads(zlib.decompress(self._modules[module.__name__][2])), vars(module))


try:
    sys.meta_path.insert(0, Bytecode(__loader__, f"bytecode/{sys.implementation.cache_tag}"))
except OSError:
    pass  # this Python is another one than what made the file: zipimport compiles

from ddmq_hpc.cli.main import main  # noqa: E402

main()
