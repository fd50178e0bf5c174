"""Tasks that run alongside a piece of work, such as a request that is carried out, and no longer than that."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import create_task_group
from anyio.abc import TaskGroup


@asynccontextmanager
async def alongside() -> AsyncIterator[TaskGroup]:
    """A group whose tasks are cancelled when the work is done; what the work raises comes out as it is."""
    failure: Exception | None = None
    async with create_task_group() as tasks:
        try:
            yield tasks
        except Exception as error:  # kept out of the group, which would wrap it
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
