"""The page: a thin layer of Gradio over `panini.web.service`."""

from __future__ import annotations

import functools
import html
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.themes import Base

from panini.editing import BIAS_LIMIT
from panini.errors import PaniniError, ServiceError
from panini.web import texts
from panini.web.service import Service
from panini.web.session import Session, combine_bias

Updates = dict[Any, Any]
"""Component → its new value, as Gradio takes it."""

ACCEPTED = ["image", ".heic", ".heif", ".avif"]
"""What the browser offers to choose; the server looks at the content."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The components that events read or change."""

    start: gr.Column
    drop: gr.File
    message: gr.HTML
    editor: gr.Row
    slider: gr.ImageSlider
    download: gr.HTML
    tools: gr.Column
    studio: gr.Column
    faces: gr.Gallery
    overall: gr.Slider
    levels: dict[int, gr.Slider]
    which: gr.Radio
    count: gr.Slider
    seed: gr.Number
    vary: gr.Button
    offered: gr.Gallery
    mapped: gr.Radio
    explain: gr.Button
    invented: gr.HTML
    maps: gr.Gallery
    again: gr.Button

    @property
    def biases(self) -> list[gr.Slider]:
        """The sliders, the overall one first."""
        return [self.overall, *self.levels.values()]

    @property
    def outputs(self) -> list[Any]:
        """Everything that an event may change."""
        return [
            *(self.start, self.drop, self.message, self.editor, self.slider, self.download),
            *(self.tools, self.studio, self.faces, *self.biases, self.which, self.offered),
            *(self.mapped, self.invented, self.maps),
        ]


def build_page(service: Service) -> gr.Blocks:
    """The blocks, to be mounted; uploads lie in the folder of the service."""
    levels = sorted(service.restorer.model.config.fusion.prior_channels)
    idle = round(service.limits.idle)
    with gr.Blocks(
        title="Panini", analytics_enabled=False, delete_cache=(min(60, idle), idle)
    ) as blocks:
        gr.HTML(texts.INTRO, js_on_load=None)
        parts = lay_out(levels)
        gr.HTML(texts.HONEST, js_on_load=None)
        connect(Handlers(service, parts), blocks)
    # Events wait in the line of the service; Gradio's own queue must not hide that it is full.
    blocks.queue(api_open=False, default_concurrency_limit=service.limits.queue + 4)
    return blocks


def theme() -> Base:
    """Calm colours, dark enough to be read; fonts that the system has."""
    calm = Base(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="stone",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    )
    return calm.set(
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300"
    )


def lay_out(levels: list[int]) -> Parts:
    """Place the components: first the drop, then the photo and its panel."""
    with gr.Column() as start:
        drop = gr.File(
            show_label=False, file_types=ACCEPTED, type="binary", height=260, elem_id="drop"
        )
    message = gr.HTML(elem_id="message", js_on_load=None)
    with gr.Row(visible=False) as editor:
        with gr.Column(scale=3, min_width=380):
            slider = gr.ImageSlider(
                show_label=False,
                interactive=False,
                max_height=640,
                elem_id="photo",
                buttons=["fullscreen"],
            )
            gr.HTML(texts.HINT, js_on_load=None)
            with gr.Column() as studio:
                made = {**_lay_out_variations(), **_lay_out_maps()}
        with gr.Column(scale=2, min_width=320, elem_id="panel"):
            with gr.Column() as tools:
                made |= _lay_out_tools(levels)
            gr.HTML(texts.step(3, "Save"), js_on_load=None)
            download = gr.HTML(elem_id="save", js_on_load=None)
            again = gr.Button("Another photo", elem_id="again")
    return Parts(
        start=start,
        drop=drop,
        message=message,
        editor=editor,
        slider=slider,
        download=download,
        tools=tools,
        studio=studio,
        again=again,
        **made,
    )


def _lay_out_tools(levels: list[int]) -> dict[str, Any]:
    gr.HTML(texts.step(1, "Faces"), js_on_load=None)
    faces = gr.Gallery(
        show_label=False,
        columns=3,
        object_fit="cover",
        allow_preview=False,
        interactive=False,
        fit_columns=False,
        buttons=[],
        elem_id="faces",
    )
    gr.HTML(texts.THETA, js_on_load=None)
    gr.HTML(texts.step(2, "Photo or imagination?"), js_on_load=None)
    overall = _bias_slider("Invent less or more", "bias", info=texts.BIAS)
    with gr.Accordion("By level of detail", open=False):
        sliders = {level: _bias_slider(texts.level(level), f"bias-{level}") for level in levels}
    return {"faces": faces, "overall": overall, "levels": sliders}


def _lay_out_variations() -> dict[str, Any]:
    with gr.Accordion("Other faces that fit", open=False, elem_id="variations"):
        gr.HTML(texts.VARIATIONS, js_on_load=None)
        with gr.Row():
            count = gr.Slider(2, 8, 4, step=1, label="How many", min_width=120)
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=80)
        which = gr.Radio(label="Of face", visible=False, elem_id="which", type="index")
        vary = gr.Button("Draw them", elem_id="vary")
        offered = gr.Gallery(
            show_label=False,
            columns=2,
            allow_preview=False,
            interactive=False,
            buttons=[],
            elem_id="offered",
            visible=False,
        )
    return {"which": which, "count": count, "seed": seed, "vary": vary, "offered": offered}


def _lay_out_maps() -> dict[str, Any]:
    with gr.Accordion("What was invented?", open=False, elem_id="invention"):
        gr.HTML(texts.INVENTED, js_on_load=None)
        mapped = gr.Radio(label="Of face", visible=False, elem_id="mapped", type="index")
        explain = gr.Button("Draw the map", elem_id="explain")
        invented = gr.HTML(js_on_load=None, elem_id="invented")
        maps = gr.Gallery(
            show_label=False,
            columns=2,
            interactive=False,
            buttons=["fullscreen"],
            elem_id="maps",
            visible=False,
        )
    return {"mapped": mapped, "explain": explain, "invented": invented, "maps": maps}


def _bias_slider(label: str, name: str, info: str | None = None) -> gr.Slider:
    return gr.Slider(-BIAS_LIMIT, BIAS_LIMIT, 0, step=0.25, label=label, elem_id=name, info=info)


def connect(handlers: Handlers, blocks: gr.Blocks) -> None:
    """Tie the events to what they do."""
    parts = handlers.parts
    # The page's events are not an API: that is below /api/v1.
    common: dict[str, Any] = {"outputs": parts.outputs, "api_visibility": "private"}
    photo: dict[str, Any] = {"show_progress_on": parts.slider, **common}
    # The upload is read and removed by us: Gradio would keep it.
    parts.drop.upload(
        handlers.open, parts.drop, preprocess=False, show_progress_on=parts.drop, **common
    )
    for slider in parts.biases:
        slider.input(handlers.bias, parts.biases, trigger_mode="always_last", **photo)
    parts.faces.select(handlers.toggle, None, **photo)
    parts.vary.click(
        handlers.vary,
        [parts.which, parts.count, parts.seed],
        show_progress_on=parts.vary,
        **common,
    )
    parts.offered.select(handlers.take, None, **photo)
    parts.explain.click(handlers.explain, parts.mapped, show_progress_on=parts.explain, **common)
    parts.again.click(handlers.again, None, **common)
    blocks.unload(handlers.forget)


def told(handler: Callable[..., Updates]) -> Callable[..., Updates]:
    """Show a user's mistake, or the server's limits, on the page, and change nothing else."""

    @functools.wraps(handler)
    def wrapped(self: Handlers, *args: Any, **kwargs: Any) -> Updates:
        try:
            return {self.parts.message: "", **handler(self, *args, **kwargs)}
        except PaniniError as error:
            return {self.parts.message: _message(str(error), "bad"), self.parts.drop: None}

    return wrapped


class Handlers:
    """What the events do: ask the service, and show what it says."""

    def __init__(self, service: Service, parts: Parts) -> None:
        self.service = service
        self.parts = parts

    @told
    def open(self, upload: dict[str, Any] | None, request: gr.Request) -> Updates:
        """A photo was dropped."""
        parts = self.parts
        photo, name = take_upload(self.service.folder, upload)
        session = self.service.open(_key(request), photo, name)
        count = len(session.faces)
        numbers = [str(n + 1) for n in range(count)]
        which = gr.update(choices=numbers, value="1", visible=count > 1)
        updates = {
            parts.start: gr.update(visible=False),
            parts.drop: None,
            parts.editor: gr.update(visible=True),
            parts.tools: gr.update(visible=count > 0),
            parts.download: texts.download(session.token),
            parts.studio: gr.update(visible=count > 0),
            parts.which: which,
            parts.mapped: which,
            **dict.fromkeys(parts.biases, 0),
            **self._nothing_made(),
            **self._shown(session),
        }
        if not count:
            updates[parts.message] = _message("No face was found; the photo is as it was.")
        return updates

    @told
    def bias(self, request: gr.Request, overall: float, *offsets: float) -> Updates:
        """A slider was moved."""
        bias = combine_bias(overall, dict(zip(self.parts.levels, offsets, strict=True)))
        return self._edit(request, lambda session: session.set_bias(bias))

    @told
    def toggle(self, event: gr.SelectData, request: gr.Request) -> Updates:
        """A face was clicked."""
        return self._edit(request, lambda session: session.toggle(event.index))

    @told
    def take(self, event: gr.SelectData, request: gr.Request) -> Updates:
        """A variation was clicked."""
        return self._edit(request, lambda session: session.take(event.index))

    @told
    def vary(self, which: int | None, count: int, seed: int, request: gr.Request) -> Updates:
        """Variations were asked for."""
        offered = self.service.edit(
            _key(request), lambda session: session.vary(which or 0, int(count), int(seed or 0))
        )
        captions = [(str(path), f"{n}") for n, path in enumerate(offered, start=1)]
        return {self.parts.offered: gr.update(value=captions, visible=True, selected_index=None)}

    @told
    def explain(self, which: int | None, request: gr.Request) -> Updates:
        """The invention map was asked for."""
        mean, maps = self.service.edit(_key(request), lambda session: session.explain(which or 0))
        return {
            self.parts.invented: texts.invented(mean),
            self.parts.maps: gr.update(
                value=[(str(path), caption) for path, caption in maps], visible=True
            ),
        }

    @told
    def again(self, request: gr.Request) -> Updates:
        """Another photo is to come."""
        self.service.forget(_key(request))
        parts = self.parts
        return {
            parts.start: gr.update(visible=True),
            parts.editor: gr.update(visible=False),
            parts.slider: None,
            parts.faces: None,
            parts.download: "",
            **self._nothing_made(),
        }

    def forget(self, request: gr.Request) -> None:
        """The page was closed."""
        self.service.forget(_key(request), ended=True)

    def _edit(self, request: gr.Request, change: Callable[[Session], None]) -> Updates:
        def changed(session: Session) -> Updates:
            change(session)
            return self._shown(session)

        return self.service.edit(_key(request), changed)

    def _shown(self, session: Session) -> Updates:
        gallery = [(str(path), caption) for path, caption in session.gallery()]
        return {
            self.parts.slider: (str(session.before), str(session.after)),
            # Nothing stays selected, so that the same face can be clicked again.
            self.parts.faces: gr.update(value=gallery, selected_index=None),
        }

    def _nothing_made(self) -> Updates:
        """No variations and no map of the photo before."""
        hidden = gr.update(value=None, visible=False)
        return {self.parts.offered: hidden, self.parts.maps: hidden, self.parts.invented: ""}


def take_upload(folder: Path, upload: dict[str, Any] | None) -> tuple[bytes, str]:
    """Read what Gradio received, and remove it.

    Args:
        folder: In which Gradio puts uploads, each in a folder of its own.
        upload: What the browser says of it.

    Returns:
        The file's bytes, and the name that it has on the user's machine.

    Raises:
        ServiceError: There is no such upload.
    """
    path = Path(str((upload or {}).get("path", ""))).resolve()
    if path.parent.parent != folder or not path.is_file():
        raise ServiceError("the upload was lost; drop the photo again")
    photo = path.read_bytes()
    shutil.rmtree(path.parent, ignore_errors=True)
    name = str((upload or {}).get("orig_name") or "")
    # It is only told to the user: without folders, and without letters that print nothing.
    name = name.replace("\\", "/").split("/")[-1]
    name = "".join(letter for letter in name if letter.isprintable())
    return photo, name[-80:] or "photo"


def _key(request: gr.Request) -> str:
    return str(request.session_hash)


def _message(text: str, kind: str = "") -> str:
    return f'<p class="message {kind}" role="alert">{html.escape(text)}</p>'
