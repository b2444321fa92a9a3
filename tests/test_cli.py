"""The command line: listing verbs, versions, errors."""

import subprocess
import sys
import types
from pathlib import Path

import pytest

import nnunet_temporal
from nnunet_temporal import cli
from nnunet_temporal.errors import InputError

PACKAGE = Path(nnunet_temporal.__file__).parent


@pytest.fixture
def fake_verb(monkeypatch):
    """Put a function in the place of the verb ``env``'s ``run``."""

    def install(run):
        module = types.SimpleNamespace(HELP="", add_arguments=lambda parser: None, run=run)
        monkeypatch.setattr(cli.importlib, "import_module", lambda name: module)

    return install


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_a_line_of_help(verb):
    help_text = cli.verb_help(verb)
    assert help_text
    assert "\n" not in help_text


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_prints_its_own_help(verb, capsys):
    with pytest.raises(SystemExit) as exit_info:
        cli.main([verb, "--help"])
    assert exit_info.value.code == 0
    assert f"nnunet_temporal {verb}" in capsys.readouterr().out


def test_every_module_of_a_verb_is_listed():
    with_help = {path.stem for path in (PACKAGE / "commands").glob("*.py") if "\nHELP" in path.read_text()}
    assert with_help == set(cli.VERBS)


def test_the_version_is_the_package_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"nnunet_temporal {nnunet_temporal.__version__}\n"


def test_no_verb_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as exit_info:
        cli.main([])
    assert exit_info.value.code == 2
    assert "VERB" in capsys.readouterr().err


def test_the_exit_code_is_that_of_the_verb(fake_verb):
    fake_verb(lambda arguments: 7)
    assert cli.main(["env"]) == 7


def test_bad_input_becomes_a_message_and_exit_code_2(fake_verb, capsys):
    def run(arguments):
        raise InputError("image.nii.gz holds no frame")

    fake_verb(run)
    assert cli.main(["env"]) == 2
    assert capsys.readouterr().err == "nnunet_temporal: image.nii.gz holds no frame\n"


def test_a_missing_foreign_module_is_not_mistaken_for_a_missing_installation(fake_verb):
    def run(arguments):
        raise ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere")

    fake_verb(run)
    with pytest.raises(ModuleNotFoundError, match="elsewhere"):
        cli.main(["env"])


def test_a_checkout_that_is_not_installed_says_how_to_install_it(tmp_path):
    # A plain folder on the path shadows the installation, and planners/ and trainers/ are not mapped into it.
    (tmp_path / "nnunet_temporal").symlink_to(PACKAGE)
    program = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(f).lower()];"
        "from nnunet_temporal.cli import main; sys.exit(main(['env']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install -e" in done.stderr
    assert "Traceback" not in done.stderr


def test_listing_the_verbs_does_not_load_torch():
    program = (
        "import sys; from nnunet_temporal.cli import build_parser; build_parser(None).format_help();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
