"""The controllers that the tuner is compared with. Each is a `Policy`, and so is whatever ``module:Policy`` names."""

from __future__ import annotations

from benchmarks.lab.controllers.fixed import Fixed
from benchmarks.lab.controllers.hpa import HPA_FAST, HPA_UTIL, Hpa
from benchmarks.lab.controllers.oracle import Oracle
from benchmarks.lab.controllers.ray_serve import RayServe

__all__ = ["HPA_FAST", "HPA_UTIL", "Fixed", "Hpa", "Oracle", "RayServe"]
