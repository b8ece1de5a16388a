"""Run by path in the interpreter of the target, as a worker or as a zygote. Loads its neighbours under a private
name, so that nothing of ours can be mistaken for a module of the target's, and from their compiled form, which a
script is never given.

Every Python can read this file, 2.7 too, so that one which is too old for the rest says so in words.
"""

import os
import sys

_PACKAGE = "_pool_monitor_child"

if __name__ == "__main__":
    if sys.version_info < (3, 8):
        version = ".".join(map(str, sys.version_info[:3]))
        sys.exit("pool_monitor: workers need Python 3.8 or later, and %s is Python %s" % (sys.executable, version))
    import importlib.util

    here = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.abspath(sys.path[0]) == here:
        del sys.path[0]  # put there because this file is run by path: not the target's business
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, os.path.join(here, "__init__.py"), submodule_search_locations=[here]
    )
    assert spec is not None
    assert spec.loader is not None
    package = sys.modules[_PACKAGE] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    process = importlib.import_module(_PACKAGE + ".process")
    importlib.import_module(_PACKAGE + ".output").print_by_lines()
    # What goes on after the fork is a worker, in every respect as if it had been started alone.
    if "POOL_MONITOR_ZYGOTE" not in os.environ or importlib.import_module(_PACKAGE + ".zygote").main():
        process.main()
