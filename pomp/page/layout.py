"""Where things stand on the page, and which function answers for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pomp.page.answers import HAND, LEARNED, LOWEST, Answers
from pomp.page.downloads import KINDS, download
from pomp.page.uploads import take_photo
from pomp.page.view import BOTH, THRESHOLDS, Sent, problem, view, words_for
from pomp.shipped_photos import SUGGESTED, shipped_photos
from prompt_core.data.open_photo import read_photo
from prompt_core.errors import UserError
from prompt_core.lazy import import_optional

if TYPE_CHECKING:
    import gradio as gr

    from pomp.formats.labelled import LabelledPhoto

FIRST = "street.jpg"
TASK_NAMES = {"detect": "boxes, with masks", "classify": "the whole photo", "segment": "every pixel"}
PROMPT_NAMES = {HAND: "hand-written", LEARNED: "learned", BOTH: "both, side by side"}
HEAD = """<h1>Your words, found in your photo</h1>
<p>On this machine: nothing leaves it, and nothing is kept.</p>"""


def build_page(answers: Answers) -> gr.Blocks:
    """The page.

    Raises:
        UserError: when Gradio is not installed.
    """
    gr = gradio()
    photos = shipped_photos()
    with gr.Blocks(title="pomp", analytics_enabled=False, delete_cache=(300, 300)) as page:
        photo = gr.State(None, time_to_live=3600)
        found = gr.State((), time_to_live=3600)
        gr.HTML(HEAD, elem_id="head")
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=280):
                words = gr.Textbox(
                    SUGGESTED[FIRST][0], label="Words, separated by commas", lines=1, max_lines=6, elem_id="words"
                )
                negatives = gr.Textbox(
                    SUGGESTED[FIRST][1],
                    label="Not these: what else may be there",
                    lines=1,
                    max_lines=4,
                    elem_id="negatives",
                )
                find = gr.Button("Find", variant="primary", elem_id="find")
            with gr.Column(scale=2, min_width=280):
                upload = gr.File(
                    label="Your photo", file_types=["image"], type="filepath", height=140, elem_id="upload"
                )
        shipped = gr.Gallery(
            [str(shown.path) for shown in photos],
            label="Or one of these",
            columns=12,
            height="auto",
            object_fit="cover",
            allow_preview=False,
            interactive=False,
            buttons=[],
            elem_id="photos",
        )
        with gr.Row(equal_height=True):
            tasks = [(TASK_NAMES[name], name) for name in answers.tasks]
            task = gr.Radio(tasks, value=answers.tasks[0], label="Say what is in", min_width=300, elem_id="task")
            prompt = gr.Radio(
                [(label, name) for name, label in PROMPT_NAMES.items()],
                value=BOTH if answers.prompt else HAND,
                label="Prompt",
                visible=bool(answers.prompt),
                elem_id="prompt",
            )
            threshold = gr.Slider(
                0,
                1,
                THRESHOLDS[answers.tasks[0]],
                step=0.01,
                label="Threshold",
                min_width=200,
                buttons=[],
                elem_id="threshold",
            )
        message = gr.HTML("", elem_id="message")
        answer = gr.HTML("", elem_id="answer")
        with gr.Row():
            buttons = [(kind, gr.Button(f"Download {kind}", size="sm", elem_id=f"download-{kind}")) for kind in KINDS]
        file = gr.JSON(visible=False)

        def show(*given: Any) -> tuple[Any, str, str]:
            seen = view(answers, *given)
            return seen.answers, seen.card, seen.message

        def take(path: str | None, *rest: Any) -> list[Any]:
            before = [gr.skip()] * 3  # what was there stays
            if path is None:
                return [None, *before, ""]
            try:
                sent = Sent(Path(path).name, take_photo(path))
            except UserError as error:
                return [None, *before, problem(str(error))]
            return [None, sent, *show(sent, *rest)]

        def pick(typed: str, ruled_out: str, event: Any) -> tuple[Sent, str, str]:
            chosen = photos[event.index]
            return _from_package(chosen), *words_for(chosen.name, typed, ruled_out)

        pick.__annotations__["event"] = gr.SelectData  # by which Gradio knows what to give it

        def first() -> Sent:
            return _from_package(next(shown for shown in photos if shown.name == FIRST))

        asked = [photo, task, words, negatives, prompt, threshold]
        shows = [found, answer, message]
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal", "show_progress_on": answer}
        quiet["trigger_mode"] = "always_last"  # what is typed while an answer is on its way is asked next
        gr.on([find.click, words.submit, negatives.submit, prompt.change], show, asked, shows, **quiet)
        upload.upload(take, [upload, *asked[1:]], [upload, photo, *shows], **quiet)
        shipped.select(pick, [words, negatives], [photo, words, negatives], **quiet).then(show, asked, shows, **quiet)
        task.change(lambda name: THRESHOLDS[name], task, threshold, **quiet).then(show, asked, shows, **quiet)
        page.load(first, None, photo, **quiet).then(show, asked, shows, **quiet)
        threshold.input(None, threshold, None, js="(threshold) => window.pompThreshold(threshold)", **quiet)
        for kind, button in buttons:
            ready = button.click(_downloader(kind), [found, threshold], [file, message], **quiet)
            ready.then(None, file, None, js="(file) => window.pompDownload(file)", **quiet)
    return page


def gradio() -> Any:
    """The library of the page.

    Raises:
        UserError: when it is not installed.
    """
    return import_optional("gradio", "app", "for the page")


def _downloader(kind: str) -> Any:
    def get(found: Any, threshold: float) -> tuple[dict[str, str] | None, str]:
        try:
            return download(kind, found, max(threshold, LOWEST)), ""
        except UserError as error:
            return None, problem(str(error))

    return get


def _from_package(shown: LabelledPhoto) -> Sent:
    assert shown.path is not None
    return Sent(shown.name, read_photo(shown.path))
