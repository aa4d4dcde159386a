import sys
from pathlib import Path

# A module of environments that worker processes import by its name, as they would a user's own.
sys.path.append(str(Path(__file__).parent / "lab"))
