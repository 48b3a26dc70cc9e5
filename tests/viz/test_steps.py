"""The backward pass edge by edge: what is printed computes what flowed, nothing is left out, and it pages in a browser."""

from __future__ import annotations

import re
import shutil

import browser as driver
import drawn
import numpy as np
import pytest
from reader import Reader, bare

import cells
import minigrad as mg
import viz
from minigrad import InputError, ancestors
from viz.formula.edges import EdgeWriter
from viz.read.network import read


def seen(kind=cells.LSTM, T=2, **options):
    return drawn.network(kind, T=T, H=2, D=3, **options)[0]


def computed(writer: EdgeWriter, n, k: int, values: dict) -> np.ndarray:
    """What is printed of an edge, read and computed from the numbers of the named quantities alone."""
    words = writer.edge(n, k)
    text = words.goes.text.replace(words.arrives.text, "upstream")
    return Reader(1, values | {"upstream": bare(np.asarray(n.grad)[None])}).compute(text)


@pytest.mark.parametrize("kind", cells.CELLS.values(), ids=cells.CELLS)
def test_what_is_printed_of_an_edge_computes_what_flowed_along_it(kind):
    loss = seen(kind)
    network = read(loss, None)
    made = viz.steps(loss)
    times = {
        n.number: 0 if network.group_of[n.number].kind == "first state" else network.group_of[n.number].t
        for n in network.nodes
        if network.group_of[n.number].kind not in ("parameter", "end")
    }
    writer = EdgeWriter(network.nodes, times)
    values = {
        writer.words[n.number].text: bare(np.asarray(n.value, np.float64)[None])
        for n in network.nodes
        if n.number in writer.named
    }
    checked = 0
    for n in network.nodes:
        for k, x in enumerate(n.inputs):
            if network.group_of[n.number].kind == "end" or not n.contributions or n.contributions[k] is None:
                continue
            if not x.shape and x.op is None:
                continue
            expected = bare(np.asarray(n.contributions[k])[None])
            found = computed(writer, n, k, values)
            np.testing.assert_allclose(
                np.broadcast_to(found, expected.shape), expected, rtol=1e-6, atol=1e-12,  # constants are printed with six digits
                err_msg=f"{writer.edge(n, k).goes.text} into {x!r}",
            )  # fmt: skip
            checked += 1
    assert checked >= len(made.slides) > 10


def test_every_edge_is_there_once_and_in_the_order_of_reverse_mode():
    loss = seen(cells.LSTM, T=3)
    made = viz.steps(loss)
    left: dict[str, int] = {}
    for place, s in enumerate(made.slides):
        left[s.reader] = place
    for place, s in enumerate(made.slides):
        assert left.get(s.source, len(made.slides)) > place, (
            f"{s.source} was left before {s.reader} had sent to it"
        )
    total: dict[str, np.ndarray] = {}
    for s in made.slides:
        total[s.words.into.text] = total.get(s.words.into.text, 0) + s.product
    grads = {n.name: n.grad for n in ancestors(loss) if n.op is None and n.requires_grad}
    for name in ("W_f", "W_i", "W_c", "W_o", "b_f", "W_y"):
        np.testing.assert_allclose(total[f"d{name}"], grads[name], rtol=1e-9, atol=1e-12)
    for s in made.slides:
        if s.factor is not None:
            product = s.sent * s.factor
            assert np.allclose(product.sum(), s.product.sum()), s.text
            assert s.product.shape != product.shape or np.allclose(product, s.product), s.text


def test_a_slide_says_what_the_equations_of_the_cell_say():
    texts = "\n".join(s.text for s in viz.steps(seen()).slides)
    for line in ("dc_1 += d(f_2 ⊙ c_1) ⊙ f_2", "do_2 = dh_2 ⊙ tanh(c_2)", "f_2 = σ(a_{f,2})",
                 "da_{f,2} = df_2 ⊙ f_2 ⊙ (1 − f_2)", "local derivative: f_2 ⊙ (1 − f_2)",
                 "dW_f += d(W_f·[h_1, x_2])·[h_1, x_2]ᵀ"):  # fmt: skip
        assert line in texts, texts


@pytest.mark.parametrize("loss", [seen(cells.LSTM), drawn.plain()], ids=["LSTM", "plain"])
def test_one_edge_is_marked_in_the_picture(loss):
    made = viz.steps(loss)
    for k, slide in enumerate(made.slides):
        lines = [
            line for line in made.at(k).dot.split("\n") if 'color="#e08214"' in line and "penwidth=7" in line
        ]
        ends = [end.strip('" ') for end in lines[0].split(" [")[0].strip().split(" -> ")]
        assert len(lines) == 1 and ends == [slide.source, slide.reader]
        assert made.at(k).dot.count("\n") == made.picture.dot.count("\n")
    with pytest.raises(InputError, match="no slide 999"):
        made.at(999)


def test_a_graph_without_steps():
    made = viz.steps(drawn.plain())
    assert [s.text.splitlines()[-1] for s in made.slides][-1].startswith("dW = ")
    assert any("local derivative: σ" in s.text for s in made.slides) and made.begins == ""


def test_what_cannot_be_paged_is_refused(tmp_path, monkeypatch):
    loss, _ = drawn.network(T=2, H=2, D=3, backward=False)
    with pytest.raises(InputError, match="backward\\(record=True\\)"):
        viz.steps(loss)
    made = viz.steps(drawn.plain())
    with pytest.raises(InputError, match="\\.html, \\.gif or \\.mp4"):
        made.save(tmp_path / "steps.png")
    with pytest.raises(InputError, match="seconds"):
        made.save(tmp_path / "steps.gif", seconds=0)
    import matplotlib.animation

    monkeypatch.setattr(matplotlib.animation.writers, "is_available", lambda name: False)
    with pytest.raises(InputError, match="ffmpeg"):
        made.save(tmp_path / "steps.mp4")
    assert list(tmp_path.iterdir()) == []


def test_same_input_same_bytes_and_nothing_from_elsewhere():
    one, two = (viz.steps(seen()).html for _ in range(2))
    assert one == two
    assert "https://" not in one and "http://" not in one.replace("http://www.w3.org", "")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', one)[1]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    marked = {
        int(k) for found in re.findall(r'class="edge" data-slides="([\d ]+)"', one) for k in found.split()
    }
    assert marked == set(range(len(viz.steps(seen()).slides))), "an edge without a line in the picture"


def test_names_from_outside_are_text():
    evil = '</script><img src=x onerror="alert(1)">'
    x = mg.Tensor(np.ones((1, 2)), name=evil[:30], requires_grad=True)
    loss = mg.tanh(x).sum().named(evil)
    loss.backward(record=True)
    made = viz.steps(loss, title=evil)
    assert made.html.count("<script") == 1 and "<img" not in made.html


def test_a_film_has_a_frame_for_each_edge(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="reads the film")
    made = viz.steps(drawn.plain())
    with image.open(made.save(tmp_path / "new" / "steps.gif", seconds=0.5)) as film:
        assert film.n_frames == len(made.slides) and film.info["duration"] == 500
        frames = []
        for k in range(film.n_frames):
            film.seek(k)
            frames.append(np.asarray(film.convert("RGB"), np.int16))
    usual = np.median(frames, axis=0)
    for frame in frames:  # a film has 256 colours: orange is what is far warmer than usual
        marked = (frame[..., 0] - frame[..., 2]) - (usual[..., 0] - usual[..., 2]) > 60
        assert marked[: frame.shape[0] * 3 // 5].sum() > 50, "no edge is marked"


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg on PATH")
def test_a_film_in_mp4(tmp_path):
    file = viz.steps(drawn.plain()).save(tmp_path / "steps.mp4", seconds=0.5)
    assert file.read_bytes()[4:8] == b"ftyp"


# In a browser.


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    found = driver.Browser(tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return viz.steps(seen()).save(tmp_path_factory.mktemp("steps") / "steps.html")


def now(screen) -> str:
    return screen.run(
        "[...document.querySelectorAll('#slides li')].filter(s => s.offsetParent).map(s => s.id).join()"
    )


def marked(screen) -> int:
    return screen.run("document.querySelectorAll('#sheet .edge.now').length")


@pytest.mark.browser
@pytest.mark.skipif(driver.PROGRAM is None, reason="no chromium on PATH")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
class TestInABrowser:
    def test_keys_buttons_and_the_address(self, screen, file):
        screen.open(file, stands="body.live")
        assert now(screen) == "edge-1" and marked(screen) == 1
        for key, expected in {
            "ArrowRight": "edge-2",
            "ArrowDown": "edge-3",
            "ArrowLeft": "edge-2",
            "Home": "edge-1",
        }.items():
            screen.press(key)
            assert now(screen) == expected and marked(screen) == 1
        last = screen.run("document.querySelector('#slides li:last-child').id")
        screen.press("End")
        assert now(screen) == last and screen.run("location.hash") == f"#{last}"
        assert screen.run("document.getElementById('next').disabled")
        screen.click(*screen.middle("#first"))
        assert now(screen) == "edge-1"
        screen.click(*screen.middle("#next"))
        assert now(screen) == "edge-2"
        screen.open(file, stands="body.live", fragment="#edge-7")
        assert now(screen) == "edge-7"
        assert screen.console == [] and [r for r in screen.requests if r.startswith("http")] == []

    def test_the_marked_edge_is_in_sight_and_is_the_slides(self, screen, file):
        screen.open(file, stands="body.live", prefers_reduced_motion="reduce")
        for place in (1, 12, 30, 44):
            screen.run(f"location.hash = '#edge-{place}'")
            screen.until(f"document.querySelector('#edge-{place}.now')")
            box = screen.run(
                "(e => { const a = e.getBoundingClientRect(), b = document.getElementById('sheet').getBoundingClientRect();"
                " return a.right > b.left && a.left < b.right && a.bottom > b.top && a.top < b.bottom; })"
                "(document.querySelector('#sheet .edge.now'))"
            )
            assert box, place
            numbers = screen.run("document.querySelector('#sheet .edge.now').dataset.slides")
            assert str(place - 1) in numbers.split()

    @pytest.mark.parametrize("width", [1280, 390])
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_it_fits_and_says_nothing(self, screen, file, width, scheme):
        screen.open(file, width=width, stands="body.live", prefers_color_scheme=scheme)
        assert screen.run("document.documentElement.scrollWidth") <= width
        assert screen.console == []
        paper = screen.run("getComputedStyle(document.querySelector('#slides li.now')).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (scheme == "light")

    def test_reduced_motion_moves_nothing_by_itself(self, screen, file):
        screen.open(file, stands="body.live", prefers_reduced_motion="reduce")
        style = screen.run("getComputedStyle(document.querySelector('#sheet .edge')).transitionDuration")
        assert style == "0s"

    def test_play_goes_on_and_stops(self, screen, file):
        screen.open(file, stands="body.live")
        screen.click(*screen.middle("#play"))
        screen.until("document.querySelector('#edge-2.now')", 5)
        screen.press("ArrowRight")
        assert screen.run("document.getElementById('play').getAttribute('aria-pressed')") == "false"

    def test_without_scripts_all_slides_stand_there(self, screen, file):
        screen.open(file, scripts=False)
        assert file.read_text(encoding="utf-8").count("<li id=") == len(viz.steps(seen()).slides)
        screen.send("Emulation.setScriptExecutionDisabled", value=False)
