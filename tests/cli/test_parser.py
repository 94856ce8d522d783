import pytest

from keras_bit.cli.main import make_parser
from keras_bit.cli.options import DATA_OPTIONS, DECISIONS, given


def error_of(arguments, capsys):
    """The one line that wrong usage prints."""
    with pytest.raises(SystemExit) as ended:
        make_parser().parse_args(arguments)
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert ended.value.code == 2 and not captured.out
    assert line.startswith("keras-bit: error: ")
    return line.removeprefix("keras-bit: error: ")


@pytest.mark.parametrize("command", ["fine-tune", "plan"])
@pytest.mark.parametrize(
    "option, right",
    [
        ("--epochs", "Use `--schedule-length N`, which counts updates: one pass over 1,000 images"),
        ("--steps", "Use `--schedule-length N`"),
        ("--lr", "Use `--learning-rate X`."),
        ("-lr", "Use `--learning-rate X`."),
        ("--image-size", "Use `--crop-size PIXELS`."),
        ("--img-size", "Use `--crop-size PIXELS`."),
        ("--model", "Use `--preset NAME`."),
        ("--crop", "Did you mean `--crop-size PIXELS`?"),
        ("--learn", "Did you mean `--learning-rate X`?"),
        ("--crp-size", "Did you mean `--crop-size PIXELS`?"),
        ("--Batch_Size", "Did you mean `--batch-size N`?"),
        ("--IMG_size", "Use `--crop-size PIXELS`."),
        ("--micro", "Did you mean `--micro-batch-size N`?"),
        ("--random-flip", "Did you mean `--no-random-flip`?"),
        ("--zzz", "--help` lists them."),
    ],
)
def test_an_unknown_option_is_answered_with_the_right_one(capsys, command, option, right):
    # In each place: argparse would take the value for the folder, or complain of that first.
    for arguments in ([option, "3", "photos"], ["photos", f"{option}=3"], [option], [option, "3"]):
        line = error_of([command, *arguments], capsys)
        assert line.startswith(f"`{option}` is no option of `keras-bit {command}`. ")
        assert right in line


def test_the_answer_is_one_that_the_command_takes(capsys):
    assert "Use `--steps N`." in error_of(["pretrain", "--epochs", "3"], capsys)
    assert "`keras-bit fine-tune` has `--schedule-length`" in error_of(["demo", "--epochs"], capsys)
    assert "`keras-bit fine-tune` has `--learning-rate`" in error_of(["demo", "--lr=3"], capsys)
    assert "--image-size" in make_parser().commands.choices["pretrain"].format_help()
    make_parser().parse_args(["pretrain", "--image-size", "32"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "`COMMAND` must be one of fine-tune, "),
        (["export", "r", "--format", "foo"], "`--format` must be one of "),
        (["plan", "photos", "--class-weight", "foo"], "`--class-weight` must be one of "),
        (
            ["fine-tun", "photos"],
            "`fine-tun` is no command of `keras-bit`. Did you mean `keras-bit",
        ),
        (["finetune", "photos"], "Did you mean `keras-bit fine-tune`?"),
        (["train", "photos", "--epochs", "3"], "Did you mean `keras-bit fine-tune`?"),
        (["zzz"], "`keras-bit --help` lists them."),
        (["predict", "--model", "run", "a"], "Its value stands alone: `keras-bit predict MODEL"),
        (["--epochs", "3"], "`--epochs` is no option of `keras-bit`."),
        (
            ["predict", "cat.jpg"],
            "`IMAGE` must be given: `keras-bit predict MODEL IMAGE...`. Example: keras-bit predict "
            "photos-bit cat.jpg",
        ),
        (["predict"], "`MODEL`, `IMAGE` must be given"),
        (["plan", "my", "photos"], "Received: photos. Options come last, and a path with spaces"),
        (["plan", "photos", "--depth", "many"], "`--depth` must be 50, 101, 152, or the units"),
        (["plan", "photos", "--depth", "1,x"], "the units of the four blocks such as 1,1,1,1. Rec"),
        (["plan", "photos", "--mixup-alpha", "-1e-3"], "`--mixup-alpha` must have a value; one"),
        (["plan", "photos", "--seed", "1.5"], "`--seed` must be an integer. Received: '1.5'"),
        (["plan", "photos", "--width", ""], "`--width` must be a number. Received: ''"),
        (["plan", "photos", "--micro-batch-size", "all"], "must be an integer, or auto. Received"),
        (["plan", "photos", "--preset", ""], "`--preset` must be a name of `keras-bit presets`"),
        (["plan", "photos", "--preset", " "], "`--preset` must be a name of `keras-bit presets`"),
        (["fine-tune", "photos", "--output="], "`--output` must name a file or folder. Received: "),
        (["predict", "run", ""], "must name a file or folder. Received: ''"),
        (["predict", "run", "a", "--top", "0"], "`--top` must be at least 1. Received: 0"),
        (["predict", "run", "a", "--damaged", "x"], "`--damaged` must be skip or keep. Received"),
        (["predict", "run", "a", "--json", "--csv"], "not allowed with argument --json"),
    ],
)
def test_wrong_usage_is_one_line(capsys, arguments, message):
    assert message in error_of(arguments, capsys)


def test_what_begins_with_a_hyphen_and_is_no_option(capsys, tmp_path, monkeypatch):
    parse = make_parser().parse_args
    assert parse(["plan", "photos", "--crop-size", "-1"]).crop_size == -1
    assert parse(["plan", "photos", "--mixup-alpha", "-.5"]).mixup_alpha == -0.5
    assert parse(["predict", "run", "--", "-cat.jpg"]).images == ["-cat.jpg"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-cat.jpg").touch()
    line = error_of(["predict", "run", "-cat.jpg"], capsys)
    assert line.endswith("A file of this name is written `./-cat.jpg`.")


@pytest.mark.parametrize("command", ["fine-tune", "plan"])
def test_only_what_was_given_is_passed_on(command):
    def passed_on(*options):
        return given(
            make_parser().parse_args([command, "x", *options]), (*DECISIONS, *DATA_OPTIONS)
        )

    assert passed_on() == {}
    assert passed_on("--warmup") == {"warmup": True}
    assert passed_on("--warmup", "--no-warmup") == {"warmup": False}
    assert passed_on("--no-random-crop", "--remat") == {"random_crop": False, "remat": True}
    assert passed_on("--no-random-flip", "--freeze-backbone", "--seed", "0") == {
        "random_flip": False,
        "freeze_backbone": True,
        "seed": 0,
    }
    assert passed_on("--damaged", "keep") == {"damaged": "keep"}
    assert passed_on("--mixup-alpha", "0", "--width", "2") == {"mixup_alpha": 0.0}


def test_help_says_who_decides_what_is_not_given(capsys):
    with pytest.raises(SystemExit, match="0"):
        make_parser().parse_args(["fine-tune", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "image sizes, schedule length and learning rate are those that suit the preset." in words
    assert "--warmup, --no-warmup" in words and "(default: 64)" not in words
