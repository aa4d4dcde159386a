import importlib.util
import sys
from pathlib import Path

# importlib import mode puts no test folder on the path, so what tests share is loaded by name here.
_SHARED = {
    "dynamics_test_plants": Path(__file__).parents[1] / "dynamics" / "plants.py",
    "pretended_card": Path(__file__).with_name("card.py"),
}
for _name, _path in _SHARED.items():
    if _name not in sys.modules:
        _spec = importlib.util.spec_from_file_location(_name, _path)
        assert _spec is not None and _spec.loader is not None
        _module = importlib.util.module_from_spec(_spec)
        sys.modules[_name] = _module
        _spec.loader.exec_module(_module)
