"""A report as a whole: its page, its JSON file and the schema, and what it says."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from helpers.bright_detectors import calibration, registered, save, two_tone
from overpaint.detection.api import make_runner
from overpaint.detection.result import AS_AFTER_EDITS
from overpaint.images import write_jpeg, write_png
from overpaint.report import api, contents, measured, wording
from overpaint.report.contents import Change, EditTest, Failure, Finding, Parameters
from overpaint.report.stability import SHIFT, Trial

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "docs" / "report.schema.json"
HOSTILE = "<img src=x onerror=alert(1)>\"'&\u202egpj.png"


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two calibrated detectors and one that fails; photos where we are."""
    monkeypatch.chdir(tmp_path)
    with registered(tmp_path) as folder:
        save(folder, "a", gain=20, fitted=calibration())
        save(folder, "b", gain=10, fitted=calibration(threshold=1))
        save(folder, "fails", "fails", fitted=calibration())
        yield


def a_report(*paths: str, models: tuple[str, ...] = ("a",), out: str = "r.html") -> dict[str, Any]:
    """The JSON file of a report that was written."""
    runner = make_runner(models)
    chapters = list(api.make_chapters([Path(path) for path in paths], runner))
    made = api.make_report(
        chapters,
        runner,
        Parameters(list(models), None, None),
        command="overpaint report",
        started=api.read_clock(),
    )
    api.write_report(made, chapters, Path(out))
    return json.loads(Path(out).with_suffix(".json").read_bytes())


def page(out: str = "r.html") -> str:
    return Path(out).read_text(encoding="utf-8")


def test_the_schema_is_published_and_holds(weights: None) -> None:
    published = json.loads(SCHEMA.read_text())
    assert published == contents.make_schema(), "python -m overpaint.report.contents > " + str(
        SCHEMA
    )
    jsonschema.Draft202012Validator.check_schema(published)
    write_png("p.png", two_tone())
    write_jpeg("q.jpg", two_tone(), 85)
    Path("bad.png").write_bytes(b"no picture")
    for models in (("a",), ("a", "b", "fails")):
        found = a_report("p.png", "q.jpg", "bad.png", models=models)
        jsonschema.validate(found, published)
    broken = found | {"photos": [found["photos"][0] | {"surplus": 1}]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, published)


def test_the_same_photo_gives_the_same_bytes_but_for_the_times(weights: None) -> None:
    write_jpeg("p.jpg", two_tone(), 90)
    texts = []
    for out in ("one.html", "two.html"):
        a_report("p.jpg", out=out)
        text = Path(out).with_suffix(".json").read_text()
        found = json.loads(text)
        texts.append(re.sub(r'"times": \{.*?\]\n \}', "", text, flags=re.DOTALL))
        assert set(found["times"]) == {"started", "finished", "seconds"}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["times"]["started"])
    assert "times" not in texts[0]
    assert texts[0] == texts[1]


def test_what_was_found_stands_in_both(weights: None) -> None:
    write_png("p.png", two_tone())
    (photo,) = a_report("p.png")["photos"]
    assert photo["finding"]["verdict"] == "strong trace"
    assert photo["opinion"]["grade"] == "moderate support"
    assert photo["finding"]["fraction"] == 0.5
    assert photo["finding"]["false_alarm_rate"] == 0.01
    assert photo["finding"]["false_alarm_bound"] == pytest.approx(0.0309, abs=1e-3)
    (region,) = photo["regions"]
    assert region["box"] == {"x": 0, "y": 0, "width": 100, "height": 160}
    assert region["stays"][SHIFT] > 0.98
    assert [c["name"] for c in photo["changes"]] == ["JPEG 95", "JPEG 85", "resize to 0.9", SHIFT]
    text = page()
    assert "Moderate support" in text
    assert "50 % of the photo in 1 region" in text
    assert "1 % of untouched photos have more than 1 % of their area marked" in text
    assert "201 photos bound the rate by 3.1 % with 95 % confidence" in text
    assert photo["file"]["sha256"] in text


def test_the_real_path_stays_here(weights: None, tmp_path: Path) -> None:
    write_png("p.png", two_tone())
    text = json.dumps(a_report("p.png"))
    assert str(tmp_path) not in text + page()


def test_several_detectors(weights: None) -> None:
    write_png("p.png", two_tone())
    found = a_report("p.png", models=("a", "b", "fails"))
    (photo,) = found["photos"]
    assert [m["name"] for m in found["models"]] == ["a", "b", "fails"]
    assert [d["model"] for d in photo["detectors"]] == ["a", "b"]
    assert photo["failed_detectors"] == {"fails": "not enough memory: you tried to allocate 9 GB"}
    assert photo["finding"]["verdict"] == "no verdict of its own"
    assert photo["opinion"]["grade"] == "moderate support"
    assert len(photo["opinion"]["reasons"]) == 3  # two rates and the shift
    assert "not enough memory" in page()


def test_a_hostile_name_and_hostile_texts_are_text(weights: None) -> None:
    write_png(HOSTILE, two_tone())
    found = a_report(HOSTILE, "gone<b>.png")
    assert found["photos"][0]["file"]["name"] == HOSTILE
    text = page()
    assert "<img src=x" not in text
    assert "gone<b>" not in text
    assert "\u202e" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;&#34;&#39;&amp;\\u202egpj.png" in text


def test_a_name_that_is_no_utf8(weights: None) -> None:
    name = "caf\udce9.png"
    try:
        write_png(name, two_tone())
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    assert a_report(name)["photos"][0]["file"]["name"] == name
    assert "caf\\xe9.png" in page()


def test_the_page_stands_alone(weights: None) -> None:
    write_png("p.png", two_tone())
    a_report("p.png")
    text = page()
    assert text.startswith("<!doctype html>")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert f'http-equiv="Content-Security-Policy" content="{policy}"' in text
    without = re.sub(r'src="data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+"', "", text)
    for loads in ("<script", "<link", "<iframe", "src=", "url(", "http:", "https:", "@import"):
        assert loads not in without, loads
    assert without.count("<img") == without.count(" alt=") >= 9
    assert '<html lang="en">' in text


def test_no_word_says_more_than_the_evidence(weights: None) -> None:
    write_png("found.png", two_tone())
    write_png("none.png", np.full((160, 200, 3), 20, np.uint8))
    write_png("small.png", np.full((40, 50, 3), 20, np.uint8))
    found = a_report("found.png", "none.png", "small.png")
    assert [photo["opinion"]["grade"] for photo in found["photos"]] == [
        *("moderate support", "no support either way", "no statement")
    ]
    assert "shorter side 40 px is under 128 px" in found["photos"][2]["opinion"]["reasons"][0]
    for word in ("fake", "authentic", "genuine", "manipulated", "tampered", "proof"):
        assert word not in page().lower(), word


def a_finding(verdict: str, fraction: float = 0.1, **more: Any) -> Finding:
    made = Finding(
        model="net",
        verdict=verdict,
        reason=None,
        doubt=None,
        score=0.9,
        calibrated=True,
        quality="lossless",
        threshold=0.9,
        window=1,
        fraction=fraction,
        num_regions=1,
        false_alarm_rate=0.01,
        false_alarm_bound=0.03,
        num_photos=200,
        false_alarm_note=None,
        edits={},
        notes=[],
    )
    return replace(made, **more)


def shifted(problem: str | None = None) -> list[Trial]:
    change = Change(SHIFT, problem, None, None, None, None, None)
    return [Trial(change, None if problem else np.ones((2, 2), bool), 0.0)]


@pytest.mark.parametrize(
    ("verdict", "fraction", "stays", "grade"),
    [
        ("strong trace", 0.1, 0.9, "moderate support"),
        ("strong trace", 0.1, 0.49, "limited support"),
        ("strong trace", 0.1, None, "limited support"),
        ("strong trace", 0.6, 0.9, "limited support"),
        ("inconclusive", 0.1, 0.9, "no support either way"),
        ("no trace found", 0.0, None, "no support either way"),
        ("uncalibrated", 0.1, 0.9, "no statement"),
        ("outside the tested range", 0.1, 0.9, "no statement"),
    ],
)
def test_the_grades(verdict: str, fraction: float, stays: float | None, grade: str) -> None:
    made = wording.form_opinion(a_finding(verdict, fraction), [], shifted(), stays)
    assert made.grade == grade


def test_a_chosen_threshold_does_not_raise_the_grade(weights: None) -> None:
    bright = np.full((160, 200, 3), 200, np.uint8)  # a trace over most of the photo,
    bright[:30], bright[60:100, 60:120] = 20, 255  # of which a higher threshold marks a small part
    write_png("p.png", bright)
    for threshold in (None, 0.999, 0.9999999):
        [chapter] = api.make_chapters([Path("p.png")], make_runner(("a",), threshold=threshold))
        assert isinstance(chapter.about, contents.Examined)
        opinion, said = chapter.about.opinion, " ".join(chapter.about.opinion.reasons)
        assert opinion.grade == "limited support"
        assert ("threshold was chosen" in said) == (threshold is not None)
        assert "region goes" not in said
    assert opinion.words.endswith("At the threshold chosen for this report, nothing is marked.")
    assert "No region is marked" in said
    assert not api._is_chosen(make_runner(("a", "b")))
    assert api._is_chosen(make_runner(("a", "b"), threshold=0.7))


def test_what_takes_weight_from_a_trace_is_said() -> None:
    trace = a_finding(
        "strong trace", 0.6, edits={"blur": EditTest(10, 3), "montage": EditTest(100, 1)}
    )
    made = wording.form_opinion(trace, [], shifted(), 0.1)
    said = " ".join(made.reasons)
    assert "most of the photo" in said
    assert "goes when the photo is shifted" in said
    assert "3 of 10 photos with blur" in said
    assert "montage" not in said
    untried = wording.form_opinion(trace, [], shifted("too small"), None)
    assert "could not be tried" in " ".join(untried.reasons)
    split = [a_finding("strong trace"), a_finding("no trace found")]
    mean = a_finding("no verdict of its own")
    made = wording.form_opinion(mean, split, shifted(), 0.9)
    assert made.grade == "limited support"
    assert "do not agree" in " ".join(made.reasons)


def test_why_a_photo_that_reaches_the_threshold_is_inconclusive() -> None:
    finding = a_finding("inconclusive", notes=["grey"], doubt=AS_AFTER_EDITS)
    reasons = wording.form_opinion(finding, [], shifted(), 0.9).reasons
    assert reasons[1:] == [f"I{AS_AFTER_EDITS[1:]}."]
    assert len(wording.form_opinion(a_finding("inconclusive"), [], shifted(), 0.9).reasons) == 1


def test_edits_are_listed_with_those_that_have_a_trace_first() -> None:
    tests = {"blur": EditTest(20, 0), "collage": EditTest(20, 3), "border": EditTest(10, 0)}
    said = wording.describe_edits(a_finding("strong trace", edits=tests))
    assert said == "collage: 3 of 20 photos; none of 10 photos or more each: blur, border"


def test_an_unknown_false_alarm_rate_is_not_a_low_one() -> None:
    said = wording.describe_false_alarms(
        a_finding("strong trace", false_alarm_rate=None, false_alarm_note="none reached it")
    )
    assert said.endswith("the false-alarm rate is unknown: none reached it.")


class TestMisses:
    def test_the_figures_are_those_of_the_published_results(self) -> None:
        made = measured.summarise_results(ROOT / "results")
        assert measured.FILE.read_bytes() == made, "python -m overpaint.report.measured"

    def test_those_of_the_shipped_weights(self) -> None:
        from overpaint.weights import list_records

        (record,) = [r for r in list_records() if r.name == "nixnet-s"]
        found = measured.find_misses("nixnet-s", record.sha256)
        by_name = {family.name: family for family in found.families}
        mean = by_name["independent set: mean of its eleven families"]
        assert mean.f1 is not None
        assert f"mean F1 of the marked region is {mean.f1:.2f} " in found.words
        assert by_name["independent set: LaMa"].num_pictures is None
        assert len(found.families) >= 15

    def test_of_other_weights_nothing_is_known(self) -> None:
        found = measured.find_misses("other", "0" * 64)
        assert found.families == []
        assert "not measured" in found.words
        assert measured.find_misses("module", None).families == []


def test_only_a_report_is_written_over(weights: None, tmp_path: Path) -> None:
    write_png("p.png", two_tone())
    a_report("p.png")
    photo = [Path("p.png")]
    with pytest.raises(api.InputError, match="--overwrite"):
        api.check_out(Path("r.html"), photo, overwrite=False)
    api.check_out(Path("r.html"), photo, overwrite=True)
    Path("r.json").write_text('{"tool": "overpaint detect"}')
    with pytest.raises(api.InputError, match=r"r\.json: exists and is no report"):
        api.check_out(Path("r.html"), photo, overwrite=True)
    Path("other.html").write_text("<p>mine</p>")
    with pytest.raises(api.InputError, match="is no report"):
        api.check_out(Path("other.html"), photo, overwrite=True)
    with pytest.raises(api.InputError, match=r"ends in \.html"):
        api.check_out(Path("r.pdf"), photo, overwrite=False)
    with pytest.raises(api.InputError, match="no folder"):
        api.check_out(Path("nowhere/r.html"), photo, overwrite=False)
    Path("in.html").write_bytes(Path("p.png").read_bytes())
    with pytest.raises(api.InputError, match="is an input"):
        api.check_out(Path("in.html"), [Path("in.html")], overwrite=True)


def test_a_photo_that_fails_leaves_the_others(weights: None) -> None:
    write_png("p.png", two_tone())
    Path("bad.png").write_bytes(b"no picture")
    chapters = list(api.make_chapters([Path("bad.png"), Path("p.png")], make_runner(["a"])))
    assert isinstance(chapters[0].about, Failure)
    assert "bad.png: not a photo" in chapters[0].about.error
    assert isinstance(chapters[1].about, contents.Examined)
    assert [c.seconds is None for c in chapters] == [True, False]
