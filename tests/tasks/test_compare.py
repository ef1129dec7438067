"""Two runs compared, and what the command prints of it."""

import json

import pytest
from typer.testing import CliRunner

from flows.cli import app
from tasks.compare import compare_runs
from tests.tasks.score_warehouse import ...
