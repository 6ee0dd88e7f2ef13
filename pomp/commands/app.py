"""The web page: a photo and words in; boxes, masks, own shares and "none of these" out.

    pomp app
    pomp app --prompt my.safetensors

Open the address that is printed. Photos that are sent stay in memory until the tab is closed; nothing is written,
nothing is sent anywhere. With --prompt, the file of pomp learn, the page shows what the hand-written and the learned
prompt find side by side.

Only this machine can open the page. --host 0.0.0.0 lets everybody in who reaches this machine: there is no password.
Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import threading
import webbrowser

from prompt_core.command_line import ArgumentParser, whole_number
from prompt_core.errors import UserError
from prompt_core.files import resolve_path
from prompt_core.ranges import Range
from prompt_core.visible import say


def main() -> int:
    """Parse, load, serve until Ctrl-C."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--prompt", default="", metavar="FILE", help="a learned prompt to compare with the hand-written"
    )
    for task in ("detect", "classify", "segment"):
        parser.add_argument(f"--{task}", default="mini", metavar="MODEL", help=f"the model to {task} (default mini)")
    parser.add_argument("--host", default="127.0.0.1", help="what to listen on (default 127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=whole_number(Range(1, 65535)), default=7860, help="default 7860")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    arguments = parser.parse_args()
    from pomp import load
    from pomp.page.answers import Answers
    from pomp.page.layout import gradio
    from pomp.page.serve import LOCAL, served

    gradio()  # what is missing is said before models are loaded
    prompt = str(resolve_path(arguments.prompt)) if arguments.prompt else ""
    models = {task: getattr(arguments, task) for task in ("detect", "classify", "segment") if getattr(arguments, task)}
    if not models:
        raise UserError("the page has no model left; leave out one of --detect, --classify and --segment")
    answers = Answers(load, models, prompt, arguments.device)
    say("loading the models …")
    answers.get_ready()
    with served(answers, arguments.host, arguments.port) as address:
        say(f"open {address}")
        if arguments.host not in LOCAL:
            say(f"everybody who reaches this machine on {arguments.host} can use the page; there is no password")
        if arguments.open:
            webbrowser.open(address)
        threading.Event().wait()
    return 0
