"""Policies by route, inside an app: what guards which route, decided by the app's own routes and proved by a table."""

from apim_middleware.guarding.coverage import Coverage, Covered, Require, coverage
from apim_middleware.guarding.guard import Guarded, Only, guard, guarded_by

__all__ = ["Coverage", "Covered", "Guarded", "Only", "Require", "coverage", "guard", "guarded_by"]
