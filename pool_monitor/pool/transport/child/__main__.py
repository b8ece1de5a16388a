"""The program of a worker and of a zygote, run by path in the target's interpreter.

It imports its package under a private name, so that no module of it can be mistaken for one of the target's. As modules
they are also loaded compiled, which a script never is.

Every Python can parse this file, also 2.7, so that one which is too old reports that in words.
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
        del sys.path[0]  # added because this file is run by path; the target must not see it
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, os.path.join(here, "__init__.py"), submodule_search_locations=[here]
    )
    assert spec is not None
    assert spec.loader is not None
    package = sys.modules[_PACKAGE] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    process = importlib.import_module(_PACKAGE + ".process")
    importlib.import_module(_PACKAGE + ".output").print_by_lines()
    # What continues after a fork is a worker, exactly as if it had been started by exec.
    if "POOL_MONITOR_ZYGOTE" not in os.environ or importlib.import_module(_PACKAGE + ".zygote").main():
        process.main()
