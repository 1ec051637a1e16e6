from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from typer import Typer
from typer.testing import CliRunner

from panini.checkpoints import save_model
from panini.cli.evaluate import evaluate as evaluate_command
from panini.degradations import DegradationParams
from panini.errors import CheckpointError, DataError
from panini.evaluation import (
    THETA_RATES,
    Evaluation,
    FaceResult,
    ThetaResult,
    evaluate,
    make_cases,
    quick_score,
    read_faces,
    restorer_of,
    score_inputs,
    theta_of,
)
from panini.evaluation_report import (
    contact_sheet,
    markdown,
    summarise,
    to_dict,
    verdicts,
    write_report,
)
from panini.features.identity import IdentityNet
from panini.features.vgg16 import VGG16
from panini.metrics.judge import METRICS, WEIGHTS, Judge, Scores, load_judge
from panini.metrics.lpips import LPIPS
from panini.metrics.sharpness import sharpness
from panini.models.panini_net import PaniniNet, named_config

WIDTHS = (2, 2, 2, 2, 2)


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    return Judge(LPIPS(VGG16(WIDTHS), [torch.rand(2) for _ in WIDTHS]), IdentityNet(width=2))


def face(seed):
    """Smooth colours with some texture, 256 px."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC))
    return (image.astype(int) + generator.integers(-20, 21, image.shape)).clip(0, 255).astype("u1")


@pytest.fixture(scope="module")
def faces():
    return [(f"face{index}", face(index)) for index in range(3)]


@pytest.fixture(scope="module")
def cases(faces):
    return make_cases(faces)


@pytest.fixture(scope="module")
def perfect(cases, judge):
    """The evaluation of a model that knows the truth."""
    return evaluate(oracle(cases), theta, cases, judge, batch=3)


@pytest.fixture(scope="module")
def unchanged(cases, judge):
    """The evaluation of a model that does nothing, and the progress it made."""
    seen = []
    return evaluate(identity, theta, cases, judge, progress=lambda *n: seen.append(n)), seen


def oracle(cases):
    """A model that knows the truth: every input is looked up."""
    known = {F.avg_pool2d(tensor(case.lq), 64).sum().item(): case.gt for case in cases}

    def restore(lq):
        keys = [F.avg_pool2d(x[None], 64).sum().item() for x in lq]
        return torch.cat([tensor(known[key]) for key in keys]), theta(lq)

    return restore


def tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1


def identity(lq):
    return lq, theta(lq)


def theta(lq):
    """The share of the spectrum that is missing: it rises as detail is lost."""
    return 1 - sharpness(F.avg_pool2d(lq, 2))


def result(key="a", low_side=60, before=0.4, after=0.2, grid=0.0):
    scores = {name: 20.0 if name == "psnr" else before for name in METRICS}
    restored = {name: 20.0 if name == "psnr" else after for name in METRICS}
    return FaceResult(
        key=key,
        low_side=low_side,
        params=DegradationParams(rate=512 / low_side).to_dict(),
        theta=0.5,
        input=Scores(**scores),
        restored=Scores(**restored),
        gt_sharpness=0.1,
        grid=grid,
    )


def evaluation(faces, thetas=None):
    thetas = thetas or {face.key: [0.1, 0.2, 0.3, 0.4] for face in faces}
    theta_result = ThetaResult(rates=THETA_RATES, thetas=thetas)
    return Evaluation(
        lpips_name="lpips_vgg_caffe", seed=0, faces=faces, theta=theta_result, restored=[]
    )


def test_a_face_is_degraded_alike_in_any_company(faces, cases):
    (alone,) = make_cases(faces[2:])
    assert alone.params == cases[2].params
    np.testing.assert_array_equal(alone.lq, cases[2].lq)
    assert alone.lq.shape == alone.gt.shape == (512, 512, 3)
    (other,) = make_cases(faces[2:], seed=1)
    assert other.params != alone.params
    assert 16 <= alone.low_side <= 100


def test_limit_and_bad_faces(faces):
    assert [case.key for case in make_cases(iter(faces), limit=2)] == ["face0", "face1"]
    with pytest.raises(DataError, match="no faces"):
        make_cases([])
    with pytest.raises(DataError, match=r"wide: expected an aligned square face.*300x256"):
        make_cases([("wide", np.zeros((256, 300, 3), np.uint8))])
    with pytest.raises(DataError, match="at least 256 px, got 128x128"):
        make_cases([("small", np.zeros((128, 128, 3), np.uint8))])


def test_what_comes_back_unchanged_scores_as_the_input(unchanged):
    found, _ = unchanged
    for case in found.faces:
        assert case.restored == case.input
    assert [row.ratio for row in summarise(found)] == pytest.approx([1.0] * len(summarise(found)))
    assert not all(verdict.passed for verdict in verdicts(found))


def test_the_truth_beats_every_input(cases, perfect):
    for case in perfect.faces:
        assert case.restored.psnr == 100
        assert case.restored.lpips < 0.02 * case.input.lpips
        assert case.restored.identity < case.input.identity
        assert case.restored.sharpness == pytest.approx(case.gt_sharpness, rel=1e-3)
    np.testing.assert_array_equal(perfect.restored[1], cases[1].gt)


def test_theta_is_followed_over_the_rates(cases, unchanged):
    found, seen = unchanged
    assert seen == [(2, 3), (3, 3)]
    assert found.theta.rates == (16, 32, 64, 128)
    assert set(found.theta.thetas) == {case.key for case in cases}
    falling = {"a": [0.1, 0.2, 0.3, 0.4], "b": [0.1, 0.2, 0.2, 0.4]}
    test = ThetaResult(rates=THETA_RATES, thetas=falling)
    assert test.rising == 0.5
    assert test.means == pytest.approx([0.1, 0.2, 0.25, 0.4])


def test_only_the_rate_differs_over_the_rates(cases):
    case = cases[0]
    errors = [np.abs(case.at_rate(rate).astype(float) - case.gt).mean() for rate in THETA_RATES]
    assert errors == sorted(errors)
    np.testing.assert_array_equal(case.at_rate(32), case.at_rate(32))


def test_quick_score_compares_with_the_input(cases, judge):
    inputs = score_inputs(cases, judge)
    known = quick_score(oracle(cases), cases, judge, inputs)
    assert known["lpips_ratio"] < 0.02
    assert known["psnr_gain"] > 10
    same = quick_score(identity, cases, judge)
    assert same["lpips_ratio"] == pytest.approx(1)
    assert same["input_identity"] == pytest.approx(known["input_identity"])
    small = quick_score(lambda lq: (F.avg_pool2d(lq, 2), theta(lq)), cases, judge, inputs)
    assert small["psnr_gain"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("faces", "thetas", "missed"),
    [
        ([result()], None, []),
        ([result(after=0.31)], None, [0]),
        ([result(after=0.45)], None, [0, 1]),
        ([result(grid=1.2)], None, [4]),
        ([result()], {"a": [0.4, 0.3, 0.2, 0.1]}, [3]),
    ],
)
def test_the_floor_is_decided_demand_by_demand(faces, thetas, missed):
    found = verdicts(evaluation(faces, thetas))
    assert [index for index, verdict in enumerate(found) if not verdict.passed] == missed


def test_summary_splits_mild_from_severe_and_knows_its_doubt():
    faces = [result(str(i), low_side=20 + 10 * i, after=0.1 + 0.02 * i) for i in range(8)]
    rows = {(row.group, row.metric): row for row in summarise(evaluation(faces))}
    assert [rows[group, "lpips"].count for group in ("all", "mild", "severe")] == [8, 5, 3]
    row = rows["all", "lpips"]
    assert row.ratio == pytest.approx(0.17 / 0.4)
    low, high = row.ratio_interval
    assert 0.1 / 0.4 < low < row.ratio < high < 0.24 / 0.4


def test_reports_are_written(tmp_path, cases, perfect, unchanged):
    files = write_report(perfect, cases, tmp_path / "out", {"model": "oracle", "data": "faces"})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in files
    )
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["model"] == "oracle"
    assert report["faces"][0]["params"] == cases[0].params.to_dict()
    text = (tmp_path / "out" / "report.md").read_text()
    assert text.startswith("# oracle on faces")
    assert "| all (3) | lpips_vgg_caffe |" in text
    assert "**missed**" in markdown(unchanged[0])


def test_a_broken_model_meets_nothing_and_its_report_is_json():
    found = evaluation([result(after=float("nan"), grid=float("nan"))])
    assert [verdict.passed for verdict in verdicts(found)] == [False, False, True, True, False]
    data = to_dict(found, {})
    assert data["faces"][0]["restored"]["lpips"] is None
    json.dumps(data, allow_nan=False)


def test_the_sheet_runs_from_mild_to_severe(cases, perfect):
    sheet = contact_sheet(perfect, cases, rows=2, side=64)
    assert sheet.size == (3 * 64 + 8, 22 + 2 * (64 + 22))
    mildest = max(cases, key=lambda case: case.low_side)
    expected = Image.fromarray(mildest.lq).resize((64, 64), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(np.asarray(sheet)[44:108, :64], np.asarray(expected))
    assert contact_sheet(perfect, cases, rows=None, side=32).height == 22 + 3 * (32 + 22)


def test_a_network_is_called_at_its_own_size():
    torch.manual_seed(0)
    net = PaniniNet.named("tiny").eval()
    lq = torch.rand(1, 3, 512, 512) * 2 - 1
    with torch.inference_mode():
        image, found = restorer_of(net)(lq)
        small, _ = restorer_of(net, size=64)(lq)
        alone = theta_of(net)(lq)
    assert image.shape == (1, 3, net.config.out_size, net.config.out_size)
    assert small.shape == (1, 3, 64, 64)
    torch.testing.assert_close(found, alone)


def test_faces_are_read_from_a_folder(tmp_path, faces):
    for key, image in faces:
        Image.fromarray(image).save(tmp_path / f"{key}.png")
    found = dict(read_faces(tmp_path))
    assert list(found) == ["face0", "face1", "face2"]
    np.testing.assert_array_equal(found["face1"], faces[1][1])
    with pytest.raises(DataError, match="no such file or folder"):
        next(read_faces(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="expected a tar shard"):
        next(read_faces(tmp_path / "nowhere.tar"))


def write_weights(folder, judge):
    folder.mkdir()
    vgg, heads, identity_net = (folder / name for name in WEIGHTS)
    save_file(judge.lpips.vgg.state_dict(), vgg, {"preprocess": "caffe"})
    head = {f"lin{i}.weight": judge.lpips.get_buffer(f"head{i}") for i in range(5)}
    save_file(head, heads)
    state = {}
    for key, value in judge.identity.state_dict().items():
        if key == "fc.weight":
            state["fc"] = value.T.contiguous()
        elif value.ndim == 4:
            state[key.replace(".weight", ".filters")] = value.permute(2, 3, 1, 0).contiguous()
        elif key.endswith("conv.bias"):
            state[key] = value
        else:
            name = key.replace(".gain", ".scale.weights").replace(".bias", ".scale.biases")
            state[name] = value
    save_file(state, identity_net)


def test_missing_metric_weights_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"vgg16_caffe\.safetensors: no such.*metrics-dir"):
        load_judge(tmp_path)


def run_command(*arguments):
    app = Typer()
    app.command()(evaluate_command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_writes_a_report_once(tmp_path, judge, faces):
    write_weights(tmp_path / "metrics", judge)
    torch.manual_seed(0)
    net = PaniniNet.named("tiny")
    save_model(net, tmp_path / "tiny.safetensors", provenance={})
    (tmp_path / "faces").mkdir()
    Image.fromarray(faces[0][1]).save(tmp_path / "faces" / "a.png")
    arguments = ["--data", tmp_path / "faces", "--metrics-dir", tmp_path / "metrics"]
    arguments += ["--out", tmp_path / "out", "--model", tmp_path / "tiny.safetensors"]
    arguments += ["--device", "cpu"]
    done = run_command(*arguments)
    # An output of 128 px cannot be compared at 256 px, but enlarged it can; it is poor, not wrong.
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "sheet.png").is_file()
    again = run_command(*arguments)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    checked = run_command(*arguments, "--overwrite", "--check")
    assert checked.exit_code == 1, checked.output


def test_the_command_takes_the_models_own_task(tmp_path, judge, faces):
    write_weights(tmp_path / "metrics", judge)
    tiny = named_config("tiny")
    encoder = replace(tiny.encoder, in_size=64, unshuffle=1)
    torch.manual_seed(0)
    net = PaniniNet(replace(tiny, task="sr16", encoder=encoder, degradation_encoder=None))
    save_model(net, tmp_path / "sr.safetensors", provenance={})
    Image.fromarray(faces[0][1]).save(tmp_path / "a.png")
    arguments = ["--data", tmp_path / "a.png", "--metrics-dir", tmp_path / "metrics"]
    arguments += ["--model", tmp_path / "sr.safetensors", "--device", "cpu", "--out"]
    done = run_command(*arguments, tmp_path / "own")
    assert done.exit_code == 0, done.output
    assert "| restored (1) | faithfulness, dB |" in done.stdout
    report = json.loads((tmp_path / "own" / "report.json").read_text())
    assert (report["task"], report["fusion"]) == ("sr16", "dafi")
    assert report["parameters"] == sum(p.numel() for p in net.parameters())
    other = run_command(*arguments, tmp_path / "other", "--task", "mfr", "--check")
    assert other.exit_code == 1, other.output
    assert "| downsampling rate |" in other.stdout


def test_theta_is_not_a_number_where_nothing_is_weighed():
    tiny = named_config("tiny")
    net = PaniniNet(replace(tiny, fusion=replace(tiny.fusion, method="concat")))
    assert theta_of(net)(torch.zeros(2, 3, 512, 512)).isnan().tolist() == [True, True]


def test_the_command_names_a_missing_network(tmp_path):
    failed = run_command("--data", tmp_path, "--metrics-dir", tmp_path, "--out", tmp_path / "out")
    assert failed.exit_code == 2
    assert failed.stderr.startswith("error: ")
    assert "vgg16_caffe.safetensors: no such file" in failed.stderr
