"""The page in a real browser: what it shows against the arrays, what moves, what keys do, and that nothing leaves it."""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter

import browser as driver
import drawn
import numpy as np
import pytest
from unpacked import Unpacked

import cells
import minigrad as mg
import viz
from viz.diagram.sequence import draw_steps
from viz.diagram.unrolled import draw_gates
from viz.language.text import number, shape_text
from viz.page.numbers import decimals
from viz.page.parts import contrast
from viz.read.network import gradient_status, read

WIDE = 1280
CAPTIONS = ["h → e", "e → l", "l → l", "l → o"]
in_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(driver.PROGRAM is None, reason="no chromium on PATH"),
]
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture(scope="module")
def recordings():
    """Three states of one LSTM: (label, loss, steps)."""
    return [(f"after {100 * k} steps", *drawn.network(H=5, seed=k)) for k in range(3)]


@pytest.fixture(scope="module")
def made(recordings):
    return viz.page(recordings, captions=CAPTIONS, title="Three recordings")


@pytest.fixture(scope="module")
def file(made, tmp_path_factory):
    return made.save(tmp_path_factory.mktemp("page") / "network.html")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The page of an LSTM with 100 units and 25 steps, and its file."""
    loss, steps = drawn.network(T=25, H=100, D=30, dtype="float32")
    made = viz.page(loss, steps)
    return made, made.save(tmp_path_factory.mktemp("large") / "large.html")


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    found = driver.Browser(tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()


def shown(screen) -> dict[str, str]:
    """The inspector: its heading under "" and its numbers by name."""
    return screen.run(
        "Object.fromEntries([['', document.getElementById('name').textContent], "
        "...[...document.querySelectorAll('#numbers div')].map(d => [d.children[0].textContent, d.children[1].textContent])])"
    )


def quiet(screen, file) -> None:
    """Nothing in the console, and nothing asked of anybody but the file itself."""
    assert screen.console == [] and screen.requests == [file.as_uri()]


def view(screen) -> list[float]:
    return [
        float(v) for v in screen.run("document.querySelector('#sheet svg').getAttribute('viewBox')").split()
    ]


def level(screen) -> str:
    return screen.run("document.querySelector('#levels [aria-pressed=true]').dataset.view")


def norm(array) -> float:
    return float(np.sqrt((np.asarray(array, np.float64) ** 2).sum()))


# The text.


def test_same_input_same_bytes(recordings, made):
    assert viz.page(recordings, captions=CAPTIONS, title="Three recordings").html == made.html


def test_numbers_are_those_of_the_arrays(recordings, made):
    for label, loss, steps in recordings:
        numbers = made.data[label]
        assert numbers["loss"][3] == number(loss.value.item(), 4)
        for step in steps:
            for name, q in step.quantities.items():
                found = numbers[f"t={step.t} {name}"]
                assert found[1] == step.t and found[2] == "1 × 5"
                assert found[3:5] == [number(norm(q.value), 4), number(norm(q.grad), 4)]
                assert found[6:8] == [number(q.value.min(), 4), number(q.value.max(), 4)]
                near = (q.value < 0.05) | (q.value > 0.95)
                share = {"f": near, "i": near, "o": near, "c_tilde": abs(q.value) > 0.95}.get(name)
                assert found[8] == ("" if share is None else f"{100 * share.mean():.0f} %")


def test_states_of_the_gradient_are_told_apart():
    loss, steps = drawn.network(backward=False)
    assert {n[5] for n in viz.page(loss, steps).data[""].values()} == {"not computed"}
    rng = np.random.default_rng(0)
    cell = cells.RNN(3, 4, rng)
    run = cells.run(cell, rng.standard_normal((4, 1, 3)).astype(np.float32), truncate=2)
    loss = (run.last * 0).sum() + run.steps[1].h.sum()
    loss.backward(record=True)
    numbers = viz.page(loss, run.steps).data[""]
    assert numbers["t=4 h"][5] == "exactly zero" and numbers["t=2 h"][5] == "normal"
    run = cells.run(cell, np.full((2, 1, 3), np.nan, np.float32))
    loss = run.last.sum()
    loss.backward(record=True)
    assert viz.page(loss, run.steps).data[""]["t=1 h"][5] == "not a number"


def test_the_file_stands_alone_and_is_small(large):
    made, file = large
    assert file.stat().st_size < 3_000_000
    assert not re.search(r'(?:src|href|url|action)\s*[=(]\s*["\']?(?!#)', made.html.split("<script")[0])
    assert "https://" not in made.html.replace("http://www.w3.org", "")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', made.html)[1]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    assert len(made.data[""]) == 1 + 25 * 9 + 2


def test_what_comes_from_outside_is_text():
    evil = '</script><script>alert(1)</script><img src=x onerror="alert(1)">\'javascript:alert(1)'
    rng = np.random.default_rng(0)
    cell = cells.RNN(3, 4, rng)
    steps = cells.run(cell, rng.standard_normal((2, 1, 3)).astype(np.float32), label=evil[:40]).steps
    loss = steps[-1].h.sum().named(evil)
    loss.backward(record=True)
    made = viz.page([(evil, loss, steps)], title=evil, captions=[evil, evil])
    assert made.html.count("<script") == 3 and "<img" not in made.html  # data, words and the program
    assert evil not in made.html
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', made.html, re.DOTALL)[1]
    assert "<" not in data and json.loads(data)["recordings"][0]["label"].startswith("</script>")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda r: viz.page([]), "empty list"),
        (lambda r: viz.page(3), "cannot draw int"),
        (lambda r: viz.page([("a",)]), "1 parts"),
        (lambda r: viz.page([r[0], r[0]]), "two recordings are called 'after 0 steps'"),
        (lambda r: viz.page({"a": r[0][1], "b": drawn.network(T=3)[0]}), "'a' and 'b' do not show the same"),
        (lambda r: viz.page(r, r[0][2]), "steps= is for a single loss"),
        (lambda r: viz.page(r, captions=["x"]), "captions: 1 for 4 steps"),
    ],
)
def test_mistakes(make, words, recordings):
    with pytest.raises(mg.InputError, match=re.escape(words)):
        make(recordings)


def test_saving(made, tmp_path):
    with pytest.raises(mg.InputError, match=re.escape("end the name in .html")):
        made.save(tmp_path / "page.svg")
    (tmp_path / "file").write_text("kept")
    with pytest.raises(mg.InputError, match="cannot be written"):
        made.save(tmp_path / "file" / "page.html")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert made.save(tmp_path / "new" / "page.html").read_text(encoding="utf-8") == made.html


def test_in_a_notebook_it_is_a_sealed_frame(made):
    shown = made._repr_html_()
    assert (
        shown.startswith("<iframe")
        and 'sandbox="allow-scripts"' in shown
        and "<script" not in shown.split("srcdoc")[0]
    )
    assert shown.count('"') % 2 == 0 and len(re.findall(r'srcdoc="([^"]*)"', shown)) == 1


def test_a_graph_without_steps_is_shown_by_its_operations():
    made = viz.page(drawn.plain())
    assert "sigmoid" in made.html or "σ" in made.html
    assert '"steps":[]' in made.html and made.data == {"": {}}


def stacked(kind):
    rng = np.random.default_rng(0)
    made = kind(rng)
    loss = (made(mg.Tensor(rng.standard_normal((4, 2, 3)).astype(np.float32))).outputs ** 2).sum()
    loss.backward(record=True)
    return loss


NETWORKS = {
    "LSTM": lambda: drawn.network()[0],
    "GRU": lambda: drawn.network(cells.GRU)[0],
    "JANET": lambda: drawn.network(cells.JANET)[0],
    "two layers": lambda: stacked(lambda rng: cells.Stack(cells.LSTM, 3, 4, 2, rng)),
    "both directions": lambda: stacked(lambda rng: cells.Bidirectional(cells.GRU, 3, 4, rng)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_gradient_goes_on_only_when_it_is_complete(name):
    made = viz.page(NETWORKS[name]())
    found = Unpacked(made.html).beats("gates")
    assert len(found) > 40
    arrives = {}
    for beat, source, _ in found:
        arrives[source] = max(beat, arrives.get(source, 0))
    for beat, source, target in found:
        assert beat > arrives.get(target, 0), (source, target)


# Numbers of steps that are laid out together.


def masked():
    """Two sequences of 4 and 2 steps side by side."""
    rng = np.random.default_rng(0)
    cell = cells.GRU(3, 4, rng)
    run = cells.run(cell, rng.standard_normal((5, 2, 3)).astype(np.float32), lengths=[5, 2])
    loss = (run.last**2).sum()
    loss.backward(record=True)
    return loss, run.steps


def cut():
    rng = np.random.default_rng(0)
    cell = cells.LSTM(3, 4, rng)
    run = cells.run(cell, rng.standard_normal((6, 1, 3)).astype(np.float32), truncate=3)
    loss = sum((s.h**2).sum() for s in run.steps)
    loss.backward(record=True)
    return loss, run.steps


class Changing(cells.Cell):
    """A cell whose every third step computes something else by the same names."""

    gates = "f h"

    def build(self, rng):
        self.gate_parameters("f", rng)
        self.gate_parameters("h", rng)
        self.count = 0

    def step(self, x, h_prev):
        self.count += 1
        f = mg.sigmoid(mg.concat(h_prev, x) @ self.W_f)
        new = mg.concat(h_prev, x) @ self.W_h
        h = f * mg.tanh(new) if self.count % 3 else f * h_prev + (1 - f) * mg.tanh(new)
        return {"f": f, "h": h}


MANY = {
    **{name: (lambda own=own: (own(), None)) for name, own in NETWORKS.items()},
    "masked": masked,
    "cut": cut,
    "steps that differ": lambda: drawn.network(Changing, T=9),
    "a loss at the end alone": lambda: long(7, last=True),
}


def long(T, H=4, last=False):
    rng = np.random.default_rng(1)
    steps = cells.run(cells.LSTM(3, H, rng), rng.standard_normal((T, 1, 3)).astype(np.float32)).steps
    loss = (steps[-1].h ** 2).sum() if last else sum((s.h**2).sum() for s in steps)
    loss.backward(record=True)
    return loss, steps


@pytest.mark.parametrize("name", MANY)
def test_every_step_has_the_numbers_of_its_own_nodes(name):
    loss, steps = MANY[name]()
    found, net = Unpacked(viz.page(loss, steps).html), read(loss, steps)
    for k, t in enumerate(net.times):
        groups = [g for b in net.bands for g in net.cells.get((b, t), ())]
        own = {(g.band, g.name or "shared"): g for g in groups}
        own |= {(b, g.name or "x"): g for b in net.bands for g in net.inputs.get((b, t), ())}
        seen = 0
        for box, (_, shape, columns, _, why, _, _) in found.boxes(k, "gates"):
            if box["output"]:
                g = net.outputs[t]
            elif box["dt"]:
                g = net.first[box["band"], box["key"]]
            else:
                g = own[box["band"], box["key"]]
                seen += 1
            gradient, state = gradient_status(net.statuses, g.out)
            assert shape == shape_text(g.out.shape) and (state or "") == why
            expected = [norm(g.out.value), gradient, g.out.value.min(), g.out.value.max()]
            for column, number_ in zip(columns, expected, strict=False):
                assert (column < 0) is (number_ is None)
                if column >= 0:
                    assert found.number(k, column) == pytest.approx(float(number_), rel=5.1e-4)
        assert seen == len(own)


def flowing(dot: str) -> Counter:
    """What the lines of a picture say flows along them, with how often each is said."""
    said = re.findall(r'-> [^\n]* tooltip=("[^"]*"|\w+)', dot)
    found = [x.strip('"').split(": ")[-1] for x in said]
    return Counter(x.removeprefix("gradient ").split(" (")[0] for x in found if x)


@pytest.mark.parametrize("name", MANY)
@pytest.mark.parametrize("level", ["step", "gate", "operation"])
def test_lines_carry_what_the_pictures_of_draw_say(name, level):
    loss, steps = MANY[name]()
    found, net = Unpacked(viz.page(loss, steps).html), read(loss, steps)

    def said(k):
        return [
            v if isinstance(v, str) else number(v, 4)
            for *_, v in found.lines(k, f"{level}s" if level != "step" else "steps")
        ]

    if level == "operation":
        for k, t in enumerate(net.times):
            picture = viz.draw(loss, steps, level=level, window=(t, t), budget=4000)
            assert Counter(said(k)) - flowing(picture.dot) == Counter(), t
            more = flowing(picture.dot) - Counter(said(k))
            assert sum(more.values()) <= 4  # what is left out, among itself
        return
    everything = (draw_steps if level == "step" else draw_gates)(net, net.times, "", None, 20.0)
    lines = [
        line
        for line in everything.dot.splitlines()
        if "legend" not in line and '"scale ' not in line and '"status ' not in line
    ]
    drawn_ = flowing("\n".join(lines))
    assert Counter(v for k in range(len(net.times)) for v in said(k)) == drawn_


def test_steps_that_are_alike_share_a_plan_and_others_do_not():
    def plans(name):
        loss, steps = MANY[name]()
        found = Unpacked(viz.page(loss, steps).html)
        return [found.recording["plans"][kind] for kind in found.kind]

    first, *inner, last = plans("a loss at the end alone")
    assert len({first, *inner, last}) == 3 and len(set(inner)) == 1
    by_step = plans("cut")
    assert by_step[3] not in by_step[:3] + by_step[4:]  # nothing goes back from t = 4 to t = 3
    changing = plans("steps that differ")
    assert len({changing[2], changing[5]}) == 1 and changing[2] not in (changing[3], changing[4])


def test_a_thousand_steps_are_all_there_in_little_time_and_room():
    def paged(T):
        loss, steps = drawn.network(T=T, H=4)
        start = os.times()
        made = viz.page(loss, steps)
        return made, steps, sum(b - a for a, b in zip(start[:4], os.times()[:4], strict=True))

    made, steps, taken = paged(1000)
    # 3 s where nothing else is measured; on a slower or busier machine, five times what a hundred steps take there.
    assert taken < 4.5 or taken < 7 * paged(100)[2]
    assert len(made.html.encode()) < 1_500_000
    found = Unpacked(made.html)
    assert found.data["steps"] == list(range(1, 1001)) and len(found.data["plans"]) < 6
    for t in (1, 2, 500, 999, 1000):
        for name in ("f", "c", "h"):
            own = next(e for b, e in found.boxes(t - 1, "gates") if (b["key"], b["dt"]) == (name, 0))
            q = steps[t - 1][name]
            for column, expected in zip(own[2], (norm(q.value), norm(q.grad)), strict=False):
                assert number(found.number(t - 1, column), 4) == number(expected, 4)


def test_numbers_are_rounded_once():
    rng = np.random.default_rng(0)
    given = rng.standard_normal(20000) * 10.0 ** rng.integers(-12, 8, 20000)
    given = np.concatenate(
        [given, 2.0 ** np.arange(-140, 140), np.arange(1, 3000) / 8, [0, 1e-120, 3.3e101, 99.96, 9.996]]
    )
    codes, powers = decimals(given)
    for v, code, power in zip(given, codes.tolist(), powers.tolist(), strict=True):
        digits, unit = code & 0x3FFF, {2: 10, 3: 1}.get(power, 100)
        four = float(f"{digits}e{power - 3}")
        two = (digits // unit + (code >> 14 & 1) * (unit > 1)) * unit
        assert float(number(four, 4).replace("−", "-")) == float(number(abs(v), 4).replace("−", "-"))
        assert float(number(float(f"{two}e{power - 3}")).replace("−", "-")) == float(
            number(abs(v)).replace("−", "-")
        )
        assert bool(code >> 15) == (v < 0)


# The browser.

# Of every box: words that lie on each other, and those that do not lie within it, in units of the picture.
OVERLAPS = """[...document.querySelectorAll('#sheet .node')].flatMap(node => {
  const frame = node.querySelector('rect').getBBox(), found = [];
  const words = [...node.querySelectorAll('text')].map(e => [e.textContent, e.getBBox()]);
  words.forEach(([a, p], i) => {
    if (p.x < frame.x - 0.5 || p.x + p.width > frame.x + frame.width + 0.5) found.push(a);
    if (p.y + 0.15 * p.height < frame.y || p.y + 0.8 * p.height > frame.y + frame.height) found.push(a);
    for (const [b, q] of words.slice(i + 1)) {
      const across = Math.min(p.x + p.width, q.x + q.width) - Math.max(p.x, q.x);
      const down = Math.min(p.y + 0.8 * p.height, q.y + 0.8 * q.height) - Math.max(p.y + 0.2 * p.height, q.y + 0.2 * q.height);
      if (across > 0.5 && down > 0.5) found.push(`${a} | ${b}`);
    }
  });
  return found;
})"""


@in_browser[0]
@in_browser[1]
class TestInTheBrowser:
    def test_opens_fast_and_silently(self, screen, large):
        assert min(screen.open(large[1]) for _ in range(3)) < 1.0
        quiet(screen, large[1])

    @pytest.mark.parametrize("name", ["t=3 c", "t=1 h", "t=2 output", "t=4 x", "loss"])
    def test_hover_shows_the_number(self, screen, file, recordings, name):
        screen.open(file)
        screen.point(*screen.middle(f'[data-key="{name}"]'))
        found = shown(screen)
        _, loss, steps = recordings[-1]
        t = int(name[2]) if name != "loss" else 0
        q = loss if name == "loss" else steps[t - 1].quantities.get(name[4:])
        if q is not None:
            assert float(found["‖value‖"].replace("−", "-")) == pytest.approx(norm(q.value), rel=6e-4)
            assert float(found["‖gradient‖"].replace("−", "-")) == pytest.approx(norm(q.grad), rel=6e-4)
        assert found[""] == {"x": "x, t = 4", "output": "y, t = 2"}.get(
            name[4:], name if not t else f"{name[4:]}, t = {t}"
        )
        assert found["status of the gradient"] == "normal"
        quiet(screen, file)

    def test_hover_over_a_line_tells_its_gradient(self, screen, file, recordings):
        screen.open(file)
        lane = screen.run(
            "[...document.querySelectorAll('.edge title')].findIndex(e => e.textContent.startsWith('c t=2 → t=3'))"
        )
        place = screen.run(
            f"(b => [b.x + b.width / 2, b.y + b.height / 2])(document.querySelectorAll('.edge')[{lane}]"
            ".querySelector('.hit').getBoundingClientRect())"
        )
        screen.point(*place)
        steps = recordings[-1][2]
        flowing = steps[2]["f"].value * steps[2]["c"].grad  # straight along the memory line
        assert shown(screen)[""] == f"c t=2 → t=3: gradient {number(norm(flowing), 4)} (normal)"

    def test_the_slider_changes_the_picture(self, screen, file, recordings):
        screen.open(file)
        screen.point(*screen.middle('[data-key="t=3 c"]'))
        seen, words = (
            [shown(screen)["‖gradient‖"]],
            [screen.run("document.querySelector('#sheet').textContent")],
        )
        for k in (1, 0):
            screen.run(
                f"(e => {{ e.value = {k}; e.dispatchEvent(new Event('input')) }})(document.getElementById('recording'))"
            )
            screen.until(f"document.querySelector('#sheet').textContent !== {json.dumps(words[-1])}")
            screen.point(*screen.middle('[data-key="t=3 h"]'))
            screen.point(*screen.middle('[data-key="t=3 c"]'))
            seen.append(shown(screen)["‖gradient‖"])
            words.append(screen.run("document.querySelector('#sheet').textContent"))
            label = screen.run("document.getElementById('label').textContent")
            assert label == f"{recordings[k][0]} · loss = {number(recordings[k][1].value.item(), 4)}"
        assert seen == [number(norm(r[2][2]["c"].grad), 4) for r in reversed(recordings)]
        quiet(screen, file)

    @pytest.mark.parametrize("where", ["steps", "gates"])
    def test_playing_moves_backward_through_time(self, screen, file, where):
        screen.open(file)
        if where == "gates":
            screen.run("document.querySelector('[data-view=gates]').click()")
            screen.until("document.querySelector('#levels [aria-pressed=true]').dataset.view === 'gates'")
        screen.run(
            "window.seen = []; new MutationObserver(all => all.forEach(m => { const e = m.target; "
            "if (e.classList.contains('now') && !m.oldValue.includes('now')) "
            "seen.push([Number(e.dataset.t), e.querySelector('title').textContent]) }))"
            ".observe(document.getElementById('sheet'), {subtree: true, attributeFilter: ['class'], attributeOldValue: true})"
        )
        screen.click(*screen.middle("#play"))
        assert screen.run("document.getElementById('play').textContent") == "■ Stop"
        screen.until("document.getElementById('play').textContent !== '■ Stop'")
        found = screen.run("seen")  # a class changes twice
        seen = [s for k, s in enumerate(found) if s not in found[:k]]
        assert len(seen) == screen.run("document.querySelectorAll('.edge[data-beat]').length") > 12
        assert all("→ loss" in said for _, said in seen[:4])
        steps = [int(re.search(r"→ .*t=(\d)", said)[1]) for _, said in seen[4:]]
        assert steps == sorted(steps, reverse=True)
        lanes = [
            t
            for t, said in seen
            if re.match(r"[ch] t=(\d)", said) and "loss" not in said and "output" not in said
        ]
        before = [t for t, said in seen if re.match(r"c t=(\d) → (c )?t=(?!\1)\d", said)]
        assert before == [3, 2, 1, 0] and lanes == sorted(lanes, reverse=True)
        quiet(screen, file)

    def test_next_and_all(self, screen, file):
        screen.open(file)
        lit = "document.querySelectorAll('.edge.lit').length"
        counts = []
        for _ in range(3):
            screen.click(*screen.middle("#beat"))
            counts.append(screen.run(lit))
        assert counts == sorted(set(counts)) and counts[0] == 4  # first all outputs from the loss
        assert screen.run("document.getElementById('status').textContent").startswith("Backward pass, 3 of ")
        screen.click(*screen.middle("#reset"))
        assert screen.run(lit) == 0 and not screen.run("!!document.querySelector('.passing')")

    def test_a_click_opens_a_step_into_gates_and_then_operations(self, screen, file):
        screen.open(file)
        assert screen.run("document.querySelectorAll('[data-key=\"t=3 f\"]').length") == 0
        screen.click(*screen.middle('[data-key="t=3 h"]'))
        screen.until("document.querySelector('[data-key=\"t=3 f\"]')")
        assert level(screen) == "gates" and screen.run("document.activeElement.dataset.key") == "t=3 h"
        x, _ = screen.middle('[data-key="t=3"]')
        assert 0 < x < WIDE
        screen.click(*screen.middle('[data-key="t=3 f"]'))
        screen.until("document.getElementById('sheet').textContent.includes('matmul')")
        assert level(screen) == "operations" and "W_f" in screen.run(
            "document.getElementById('sheet').textContent"
        )
        quiet(screen, file)

    def test_keys_walk_through_the_steps_and_open_them(self, screen, file):
        screen.open(file)
        at = "document.activeElement.dataset.key || document.activeElement.id || document.activeElement.dataset.view"
        screen.run("document.getElementById('recording').focus()")
        screen.press("Tab")
        assert screen.run(at) == "t=4"  # where the gradient starts
        ring = "getComputedStyle(document.activeElement.children[1]).strokeWidth"
        assert screen.run(ring) == "3.5px"
        visited = []
        for name in (
            "ArrowLeft",
            "ArrowLeft",
            "ArrowDown",
            "ArrowDown",
            "ArrowRight",
            "Home",
            "End",
            "ArrowLeft",
        ):
            screen.press(name)
            visited.append(screen.run(at))
        assert visited[:2] == ["t=3", "t=2"] and visited[5:] == ["t=1", "t=4", "t=3"]
        assert visited[3] in ("t=2 h", "t=2 x") and visited[4] == visited[3].replace("2", "3")
        assert shown(screen)[""].startswith("step t = 3 l → l")
        screen.press("Enter")
        screen.until("document.querySelector('[data-key=\"t=3 f\"]')")
        assert level(screen) == "gates" and screen.run(at) == "t=3"
        screen.press("Enter")
        screen.until("document.getElementById('sheet').textContent.includes('matmul')")
        for expected in ("gates", "steps"):
            screen.press("Escape")
            screen.until(
                f"document.querySelector('#levels [aria-pressed=true]').dataset.view === '{expected}'"
            )
        assert screen.run(at) == "t=3"
        before = view(screen)
        screen.press("+")
        assert view(screen)[2] == pytest.approx(before[2] / 1.25, rel=1e-3)
        screen.press("0")
        assert view(screen)[2] == pytest.approx(before[2], rel=1e-3)
        quiet(screen, file)

    def test_pan_and_zoom(self, screen, file):
        screen.open(file)
        x, y = screen.middle("#sheet")
        whole = view(screen)
        screen.wheel(x, y, -400)
        screen.until(f"document.querySelector('#sheet svg').viewBox.baseVal.width < {whole[2]} - 10")
        close = view(screen)
        assert close[0] + close[2] / 2 == pytest.approx(whole[0] + whole[2] / 2, abs=whole[2] / 100)
        screen.drag(x, y, x - 120, y + 30)
        moved = view(screen)
        assert moved[0] > close[0] + 20 and moved[1] < close[1] - 5 and moved[2:] == close[2:]
        assert level(screen) == "steps"  # a drag opens nothing
        for name, larger in (("#in", False), ("#out", True)):
            before = view(screen)[2]
            screen.click(*screen.middle(name))
            assert (view(screen)[2] > before) is larger
        screen.click(*screen.middle("#fit"))
        assert view(screen) == whole

    def test_without_motion_it_goes_in_steps(self, screen, file):
        screen.open(file, prefers_reduced_motion="reduce")
        assert screen.run("document.getElementById('play').textContent") == "One step back in time"
        reached = []
        for _ in range(5):
            screen.click(*screen.middle("#play"))
            now = screen.run("[...document.querySelectorAll('.edge.now')].map(e => Number(e.dataset.t))")
            time.sleep(0.05)
            assert now == screen.run(
                "[...document.querySelectorAll('.edge.now')].map(e => Number(e.dataset.t))"
            )
            reached.append(min(now))
        assert reached[1:] == [4, 3, 2, 1]  # after the outputs of all steps
        moving = "[...document.querySelectorAll('#sheet *')].some(e => getComputedStyle(e).transitionDuration !== '0s')"
        assert not screen.run(moving)
        quiet(screen, file)

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_it_is_readable(self, screen, file, scheme):
        screen.open(file, height=1600, prefers_color_scheme=scheme)
        screen.click(*screen.middle("#in"))
        for selector, least in (
            ("h1", 7), ("#label", 4.5), ("#status", 4.5), ("#play", 7), ("[aria-pressed=true]", 4.5),
            ('[data-key="t=3 c"] text', 7), (".edge text", 3), (".legend text", 4.5),
        ):  # fmt: skip
            box = screen.run(
                f"(b => [b.x, b.y, b.width, b.height])(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
            )
            seen = screen.photograph(clip=box)
            colours = ["#" + bytes(p).hex() for p in np.unique(seen.reshape(-1, 3), axis=0)]
            light = [contrast(c, "#000000") for c in colours]
            extremes = colours[int(np.argmin(light))], colours[int(np.argmax(light))]
            assert contrast(*extremes) >= least, (selector, extremes)
        page = screen.photograph(clip=(2, 2, 4, 4)).mean()
        assert page > 200 if scheme == "light" else page < 60

    def test_it_has_names_for_those_who_do_not_see_it(self, screen, file):
        screen.open(file)
        tree = screen.send("Accessibility.getFullAXTree")["nodes"]
        names = {
            (n["role"]["value"], n["name"]["value"]) for n in tree if "name" in n and not n.get("ignored")
        }
        buttons = {name for role, name in names if role == "button"}
        assert "step t = 3 l → l" in buttons and any(b.startswith("c t=3: 1 × 5, norm ") for b in buttons)
        assert {"Zoom in", "Zoom out"} <= buttons and any(r == "slider" for r, _ in names)
        assert not [n for role, n in names if role in ("button", "slider") and not n.strip()]

    def test_without_scripts_the_picture_is_there(self, screen, file):
        screen.open(file, scripts=False)
        text = screen.send(
            "DOM.getOuterHTML", nodeId=screen.send("DOM.getDocument", depth=0)["root"]["nodeId"]
        )["outerHTML"]
        assert "Scripts are off" in text and 'id="tools" hidden' in text
        seen = screen.photograph(clip=(20, 150, 900, 300))
        assert len(np.unique(seen.reshape(-1, 3), axis=0)) > 20

    def test_it_fits_a_telephone(self, screen, file):
        screen.open(file, width=400, height=800)
        assert screen.run("document.documentElement.scrollWidth") <= 400

    def test_any_step_of_a_long_sequence_is_drawn_with_its_own_numbers(self, screen, tmp_path):
        loss, steps = long(200)
        screen.open(viz.page(loss, steps).save(tmp_path / "long.html"))
        for where, name in (("gates", "f"), ("steps", "c")):
            screen.run(f"document.querySelector('[data-view={where}]').click()")
            screen.until(f"document.querySelector('#levels [aria-pressed=true]').dataset.view === '{where}'")
            for t in (1, 100, 200):
                screen.run(
                    f"(e => {{ e.value = {t - 1}; e.dispatchEvent(new Event('input')) }})(document.getElementById('where'))"
                )
                key = f"t={t} {name}"
                screen.until(f"document.querySelector('[data-key=\"{key}\"]')")
                assert screen.run("document.querySelectorAll('#sheet *').length") < 6000
                words = screen.run(
                    f"[...document.querySelectorAll('[data-key=\"{key}\"] text')].map(e => e.textContent)"
                )
                q = steps[t - 1][name]
                assert f"∂{name} {number(norm(q.grad))}" in words
                if name == "f":
                    assert number(q.value.mean()) in words
                screen.point(*screen.middle(f'[data-key="{key}"]'))
                found = shown(screen)
                assert (found["‖value‖"], found["‖gradient‖"]) == (
                    number(norm(q.value), 4),
                    number(norm(q.grad), 4),
                )
        screen.run("document.querySelector('[data-view=operations]').click()")
        for t in (2, 101, 199):
            screen.run(
                f"(e => {{ e.value = {t - 1}; e.dispatchEvent(new Event('input')) }})(document.getElementById('where'))"
            )
            screen.until(
                f"document.getElementById('sheet').textContent.includes('t = {t + 1} … 200') || {t} === 199"
            )
            seen = screen.run("[...document.querySelectorAll('#sheet .edge title')].map(e => e.textContent)")
            picture = viz.draw(loss, steps, level="operation", window=(t, t))
            said = Counter(x.split(": gradient ")[1].split(" (")[0] for x in seen)
            assert said - flowing(picture.dot) == Counter() and len(seen) > 30

    @pytest.mark.parametrize("name", ["LSTM", "masked", "both directions", "wide"])
    def test_words_lie_neither_on_each_other_nor_on_the_border_of_their_box(self, screen, tmp_path, name):
        loss, steps = drawn.network(T=5, H=100, N=3) if name == "wide" else MANY[name]()
        screen.open(viz.page(loss, steps).save(tmp_path / "words.html"), width=1300)
        for where in ("steps", "gates", "operations"):
            screen.run(f"document.querySelector('[data-view={where}]').click()")
            screen.until(f"document.querySelector('#levels [aria-pressed=true]').dataset.view === '{where}'")
            assert screen.run(OVERLAPS) == [], where

    def test_evil_names_do_nothing(self, screen, tmp_path):
        evil = '</script><script>alert(1)</script><img src=x onerror="console.log(1)">'
        rng = np.random.default_rng(0)
        steps = cells.run(
            cells.RNN(3, 4, rng), rng.standard_normal((2, 1, 3)).astype(np.float32), label=evil[:40]
        ).steps
        loss = steps[-1].h.sum().named("javascript:alert(1)")
        loss.backward(record=True)
        made = viz.page([(evil, loss, steps), (evil[1:], loss, steps)], title=evil, captions=[evil, evil])
        path = made.save(tmp_path / "evil.html")
        screen.open(path)
        screen.run("document.querySelector('[data-view=gates]').click()")
        screen.until("document.querySelector('#levels [aria-pressed=true]').dataset.view === 'gates'")
        screen.run("document.querySelector('[data-view=operations]').click()")
        screen.until("document.getElementById('sheet').textContent.includes('matmul')")
        assert screen.run("document.querySelectorAll('img, a, iframe').length") == 0
        assert screen.run("document.scripts.length") == 3  # data, words, and the script
        quiet(screen, path)

    def test_the_policy_forbids_every_request(self, screen, file):
        screen.open(file)
        screen.run("fetch('https://example.org/').then(() => 'went', () => 'refused')")
        screen.run(
            "new Promise(r => { const i = new Image(); i.onerror = i.onload = r; i.src = 'https://example.org/a.png' })"
        )
        assert any("Content Security Policy" in said for said in screen.console)
