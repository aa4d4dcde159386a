import importlib.util
import sys
from pathlib import Path

# importlib import mode puts no test folder on the path, so the shared plants are loaded by name here.
if "dynamics_test_plants" not in sys.modules:
    _spec = importlib.util.spec_from_file_location(
        "dynamics_test_plants", Path(__file__).parents[1] / "dynamics" / "plants.py"
    )
    assert _spec is not None and _spec.loader is not None
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["dynamics_test_plants"] = _module
    _spec.loader.exec_module(_module)
