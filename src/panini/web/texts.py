"""The words and the looks of the page. Nothing here is loaded from elsewhere."""

from __future__ import annotations

INTRO = """
<header class="intro">
  <h1>Panini</h1>
  <p class="lead">Drop an old, small or blurry photo. Its faces are drawn anew; everything else
  stays as it is.</p>
  <p class="fine">The photo stays on the machine that runs this page, and is forgotten when you
  close it. Please read
  <a href="#honest-use">what a restored face is evidence of, and what not</a>.</p>
</header>
"""

THETA = """
<p class="fine">θ (theta) is the generator's share in the finest details of a face: 0 is all from
your photo, 1 is all invented. Click a face to leave it as it was.</p>
"""

HINT = '<p class="fine">Drag the line: before on the left, after on the right.</p>'

VARIATIONS = """
<p class="fine">The photo leaves much open. These faces agree with it as well as the first one does.
Click one to put it into the photo.</p>
"""

INVENTED = """
<p class="fine">Where would another face have fitted as well? Grey comes from the photo; yellow to
red was invented.</p>
"""

HONEST = """
<section class="honest" id="honest-use">
  <h2>Honest use</h2>
  <ul>
    <li>A restored face is a <b>likely</b> face, not <b>the</b> face. What the photo lost is
    drawn by a program that has seen many other people.</li>
    <li>It is evidence of nobody's identity, age, expression, eye colour, scars or jewellery: do
    not use it to recognise, accuse, diagnose or judge a person.</li>
    <li>It is good for what memory can check: family albums, prints, a picture on the wall. Keep
    the original, and say that faces were restored when you share it.</li>
    <li>Every download carries a mark in its metadata: the model, θ of each face, and the
    settings.</li>
  </ul>
</section>
"""

BIAS = "Left: closer to the photo. Right: clearer, but more of it is invented."

LEVELS = {
    4: "head and pose",
    8: "shape of the face",
    16: "eyes, nose, mouth",
    32: "skin and hair",
    64: "finest detail",
}
"""Side of the features in px → what they shape, roughly."""

CSS = """
#drop .wrap { font-size: 0; gap: 0; }
#drop .wrap .or { display: none; }
#drop .wrap::after { content: "Drop a photo here, or click to choose one"; font-size: 1.1rem;
  margin-top: .75rem; color: var(--body-text-color); }
#message:not(:has(.message)) { display: none; }
.html-container { padding: 0 .25rem !important; }
#panel, #panel .column { gap: .6rem; }
#faces .grid-wrap, #offered .grid-wrap, #maps .grid-wrap { min-height: 0; max-height: none; }
#maps .caption-label { top: .25rem; bottom: auto; height: max-content; }
#faces .caption-label { opacity: 1; color: var(--body-text-color); }
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; }
.intro h1 { font-size: 2rem; font-weight: 650; letter-spacing: -0.02em; margin: .5rem 0 .25rem; }
.intro .lead { font-size: 1.2rem; margin: 0 0 .35rem; text-wrap: balance; }
.prose .fine { color: var(--body-text-color-subdued); font-size: .9rem; margin: 0; }
.prose .fine a { margin: 0; padding: 0; color: var(--link-text-color); }
.prose .step { font-size: 1rem; font-weight: 600; margin: .5rem 0 0; }
.message { border-left: 4px solid var(--color-accent); padding: .6rem .9rem; margin: .25rem 0;
  background: var(--background-fill-secondary); border-radius: 6px; }
.message.bad { border-color: #b42318; }
.save { display: block; text-align: center; text-decoration: none !important; font-weight: 600;
  padding: .75rem 1rem; border-radius: 8px; background: #0f766e; color: #fff !important; }
.save + .fine { padding-top: .4rem; }
.save:hover, .save:focus-visible { background: #115e59; }
.honest { margin-top: 2rem; border-top: 1px solid var(--border-color-primary); padding-top: .75rem;
  max-width: 52rem; }
.honest h2 { font-size: 1.05rem; font-weight: 600; margin: 0 0 .4rem; }
.honest ul { padding-left: 1.1rem; list-style: disc; }
.honest li { margin: .25rem 0; font-size: .92rem; }
#drop { border-style: dashed; border-width: 2px; border-radius: 12px; }
"""


def step(number: int, title: str) -> str:
    """A heading of the panel."""
    return f'<h2 class="step">{number} · {title}</h2>'


def download(token: str) -> str:
    """The link that saves the photo; relative, for the page may be served below a path."""
    return (
        f'<a class="save" href="download/{token}" download>Download the photo</a>'
        '<p class="fine">In full size, with its metadata and a mark that faces were restored.</p>'
    )


def level(side: int) -> str:
    """What a slider moves: "64 px · finest detail"."""
    return f"{side} px · {LEVELS.get(side, 'detail')}"


def invented(mean: float) -> str:
    """What the invention map says of the face as a whole."""
    return f"<p><b>On the whole {mean:.2f}</b>: 0 is all held by the photo, 1 is all invented.</p>"
