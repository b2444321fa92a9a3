"""Tables and summaries on disk."""

import json
import math

import pytest

from nnunet_temporal.errors import InputError
from nnunet_temporal.evaluation.write import check_output, write_summary, write_table


def test_a_table_has_the_columns_of_all_rows_and_nothing_for_nan(tmp_path):
    write_table([{"case": "a", "hd_mm": math.inf}, {"case": "b", "dice": math.nan, "n": 2}], tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().splitlines() == ["case,hd_mm,dice,n", "a,inf,,", "b,,,2"]


def test_a_summary_holds_null_for_nan(tmp_path):
    write_summary({"mean": math.nan, "list": [1.5, math.nan]}, tmp_path / "summary.json")
    content = json.loads((tmp_path / "summary.json").read_text())
    assert (content["mean"], content["list"]) == (None, [1.5, None])


def test_our_own_summary_may_be_replaced(tmp_path):
    write_summary({}, tmp_path / "summary.json")
    check_output(tmp_path)


@pytest.mark.parametrize("content", ['{"foreground_mean": {}}', "no JSON", "[]"])
def test_the_summary_of_somebody_else_is_kept(tmp_path, content):
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(InputError, match=r"summary.json.*choose a folder with -o"):
        check_output(tmp_path)
