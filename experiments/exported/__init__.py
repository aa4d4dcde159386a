"""Models and controllers as folders that need no store: a description in JSON beside tensors in safetensors."""

from steersman.experiments.exported.controller import load_controller
from steersman.experiments.exported.deployed import DeployedController
from steersman.experiments.exported.loop import control_loop
from steersman.experiments.exported.model import load_model
from steersman.experiments.exported.onnx_file import to_onnx

__all__ = ["DeployedController", "control_loop", "load_controller", "load_model", "to_onnx"]
