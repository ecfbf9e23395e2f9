"""A column that several progress bars have."""

from rich.progress import ProgressColumn, Task
from rich.text import Text


class Reached(ProgressColumn):
    """The instant that the work has come to: the task's field `reached`."""

    def render(self, task: Task) -> Text:
        return Text(task.fields.get("reached", ""), style="cyan")
