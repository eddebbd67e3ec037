"""One HTML page of the photos with the highest scores, which needs no other files.

- The page's content security policy forbids it to load anything, and allows its one script and one
  style by their hashes.
- File names are untrusted. Characters that are not visible are spelled out, and all text is
  escaped; the script reads values from attributes and only compares them.
- The page does not contain the photos themselves, so that it can be passed on.
"""

from __future__ import annotations

import base64
import hashlib
import os
from html import escape
from pathlib import Path, PurePosixPath
from typing import Any

from overpaint.errors import ScanError
from overpaint.images import write_bytes
from overpaint.scan.reading import connect
from overpaint.terminal import make_printable

_OURS = '<meta name="generator" content="overpaint scan gallery">'
STYLE = """
body{font:15px/1.4 system-ui,sans-serif;margin:1.5rem;color:#111;background:#fff}
form{display:flex;gap:1.5rem;flex-wrap:wrap;align-items:end;margin:1rem 0;padding:0}
label{display:grid;gap:.2rem}
ul{list-style:none;padding:0;display:grid;gap:1rem;
grid-template-columns:repeat(auto-fill,minmax(15rem,1fr))}
li{border:1px solid #bbb;border-radius:.3rem;padding:.7rem;overflow-wrap:anywhere}
li[hidden]{display:none}
img{width:100%;height:12rem;object-fit:contain;background:#222}
b{display:block;font-size:1.15rem}small{color:#444}
@media (prefers-color-scheme:dark){body{color:#eee;background:#161616}small{color:#bbb}}
"""

SCRIPT = """
const least = document.getElementById("least"), folder = document.getElementById("folder");
const shown = document.getElementById("shown"), items = [...document.querySelectorAll("li")];
function filter() {
  let num = 0;
  for (const item of items) {
    const fits = Number(item.dataset.score) >= Number(least.value)
      && (folder.value === "" || item.dataset.folder === folder.value);
    item.hidden = !fits;
    num += fits;
  }
  const from = Number(least.value).toFixed(2);
  shown.textContent = `${num} of ${items.length} shown, score from ${from}`;
}
least.addEventListener("input", filter);
folder.addEventListener("change", filter);
filter();
"""

_HITS = """
SELECT path, score, calibrated, band, verdict, width, height, sha256, same_as, heatmap FROM photos
WHERE error IS NULL AND score >= ? ORDER BY score DESC, path LIMIT ?
"""


def write_gallery(
    folder: str | Path, out: str | Path, *, top: int = 200, least: float = 0.0
) -> int:
    """Write a page of at most `top` photos with a score of `least` or more; returns their number.

    Each of several identical files has an entry. An earlier page is replaced. Raises `ScanError`,
    also for another file in its place, and `ImageError` where the page cannot be written.
    """
    if os.path.lexists(out) and not _is_gallery(Path(out)):
        raise ScanError(f"{out}: exists and is no page of `overpaint scan gallery`; name another")
    db = connect(folder)
    ((num_photos,),) = db.execute("SELECT count(*) FROM photos").fetchall()
    hits = db.execute(_HITS, [least, top]).fetchall()
    write_bytes(out, render_page(hits, num_photos).encode())
    return len(hits)


def _is_gallery(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _OURS.encode() in file.read(200)
    except OSError:
        return False


def render_page(hits: list[tuple[Any, ...]], num_photos: int) -> str:
    """The HTML page; each hit has the columns of `_HITS`."""
    folders = sorted({_find_folder(hit[0]) for hit in hits})
    options = "".join(f"<option>{_escape(name)}</option>" for name in folders)
    items = "\n".join(_render_item(*hit) for hit in hits)
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(STYLE)}'; "
        f"script-src '{_hash(SCRIPT)}'; base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{_OURS}
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<title>overpaint scan: highest scores</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Highest scores</h1>
<p>{len(hits)} of {num_photos} photos. The small heatmaps are white where inpainting is likely. A
score is for ordering a queue of photos that people check, and decides nothing by itself; a photo
without a trace is not shown to be authentic.</p>
<form>
<label>Lowest score <input id="least" type="range" min="0" max="1" step="0.01" value="0"></label>
<label>Folder <select id="folder"><option value="">all</option>{options}</select></label>
<output id="shown" for="least folder"></output>
</form>
<ul>
{items}
</ul>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _render_item(
    path: str,
    score: float,
    calibrated: bool,
    band: str,
    verdict: str,
    width: int,
    height: int,
    sha256: str,
    same_as: str | None,
    heatmap: bytes,
) -> str:
    image = base64.b64encode(heatmap).decode()
    notes = [f"{width} x {height}", f"sha256 {sha256}"]
    notes += [] if calibrated else ["uncalibrated: the score is no probability"]
    notes += [f"identical to {same_as}"] if same_as else []
    return (
        f'<li data-score="{score:.6f}" data-folder="{_escape(_find_folder(path))}">'
        f'<img src="data:image/png;base64,{image}" alt="heatmap of {_escape(path)}" loading="lazy">'
        f"<b>{score:.3f} {_escape(band)}</b>{_escape(path)}<br><small>{_escape(verdict)}; "
        f"{_escape('; '.join(notes))}</small></li>"
    )


def _find_folder(path: str) -> str:
    """The folder, bucket or archive of a photo."""
    return str(PurePosixPath(path.replace("::", "/")).parent)


def _escape(text: str) -> str:
    return escape(make_printable(text), quote=True)


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
