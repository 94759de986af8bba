# SPDX-License-Identifier: Apache-2.0
"""The rules that keep or reject a single observation, and the code that each rejection gets."""

import math

import pytest
import torch
from references import rejected

import halcyon

SATELLITE = dict(Observation=200.0, Pressure=math.nan, Height=math.nan, Observation_Type=0, QC_Flag=0,
                 Analysis_Use_Flag=0, min_valid=150.0, max_valid=350.0, local_channel_id=6, is_conv=False)
STATION = dict(Observation=5.0, Pressure=900.0, Height=10.0, Observation_Type=120, QC_Flag=0, Analysis_Use_Flag=1,
               min_valid=-100.0, max_valid=100.0, local_channel_id=7, is_conv=True)
TYPES = dict(Observation_Type=torch.int32, QC_Flag=torch.int32, Analysis_Use_Flag=torch.int8,
             local_channel_id=torch.int32, is_conv=torch.bool)
IN_SITU = dict(conv_uv_in_situ_only=True)
CASES = [
    (SATELLITE, {}, {}, "kept"),
    (SATELLITE, dict(Observation=math.nan), {}, "not_finite"),
    (SATELLITE, dict(Observation=math.inf), {}, "not_finite"),
    (SATELLITE, dict(Observation=150.0), {}, "kept"),
    (SATELLITE, dict(Observation=350.0), {}, "kept"),
    (SATELLITE, dict(Observation=149.9), {}, "outside_valid_range"),
    (SATELLITE, dict(Observation=350.1), {}, "outside_valid_range"),
    (SATELLITE, dict(QC_Flag=1), {}, "kept"),
    (SATELLITE, dict(QC_Flag=1), dict(qc_filter=True), "provider_flag"),
    (SATELLITE, {}, dict(qc_filter=True), "kept"),
    (SATELLITE, {}, dict(conv_uv_in_situ_only=True, conv_gps_level1_only=True), "kept"),
    (SATELLITE, dict(local_channel_id=1), dict(conv_gps_level1_only=True), "kept"),
    (STATION, {}, {}, "kept"),
    (STATION, dict(Pressure=math.nan), {}, "pressure"),
    (STATION, dict(Pressure=200.0), {}, "kept"),
    (STATION, dict(Pressure=199.0), {}, "pressure"),
    (STATION, dict(Pressure=1100.0), {}, "kept"),
    (STATION, dict(Pressure=1100.1), {}, "pressure"),
    (STATION, dict(Pressure=0.5, local_channel_id=2), {}, "kept"),
    (STATION, dict(Pressure=0.4, local_channel_id=0), {}, "pressure"),
    (STATION, dict(Pressure=100.0, local_channel_id=3), {}, "pressure"),
    (STATION, dict(Height=math.nan), {}, "height"),
    (STATION, dict(Height=0.0), {}, "kept"),
    (STATION, dict(Height=-0.1), {}, "height"),
    (STATION, dict(Height=60000.0), {}, "kept"),
    (STATION, dict(Height=60001.0), {}, "height"),
    (STATION, dict(Analysis_Use_Flag=-1), {}, "kept"),
    (STATION, dict(Analysis_Use_Flag=-1), dict(qc_filter=True), "provider_flag"),
    (STATION, dict(QC_Flag=9), dict(qc_filter=True), "kept"),
    *[(STATION, dict(Observation_Type=t), IN_SITU, "kept") for t in (220, 221, 229, 235, 280, 282)],
    *[(STATION, dict(Observation_Type=t), IN_SITU, "report_type") for t in (219, 222, 228, 236, 281)],
    (STATION, dict(local_channel_id=5), dict(conv_uv_in_situ_only=True), "kept"),
    (STATION, dict(local_channel_id=6), dict(conv_uv_in_situ_only=True), "report_type"),
    *[(STATION, dict(local_channel_id=c), dict(conv_gps_level1_only=True), "channel_dropped") for c in (1, 2)],
    (STATION, dict(local_channel_id=0), dict(conv_gps_level1_only=True), "kept"),
    (STATION, dict(local_channel_id=3), dict(conv_gps_level1_only=True), "kept"),
]


def columns(rows):
    return {name: torch.tensor([row[name] for row in rows], dtype=TYPES.get(name, torch.float32)) for name in SATELLITE}


@pytest.mark.parametrize("kind, change, options, reason", CASES,
                         ids=lambda v: None if v in (SATELLITE, STATION) else str(v))
def test_rule(kind, change, options, reason):
    code = halcyon.quality_control(columns([kind | change]), **options)
    assert code.dtype == torch.int32 and [halcyon.qc_reasons[c] for c in code.tolist()] == [reason]


def test_rows_are_judged_one_by_one():
    chosen = [case for case in CASES if not case[2]]
    codes = halcyon.quality_control(columns([kind | change for kind, change, _, _ in chosen]))
    assert [halcyon.qc_reasons[c] for c in codes.tolist()] == [case[3] for case in chosen]
    assert halcyon.quality_control(columns([])).shape == (0,)


def test_reasons():
    reasons = halcyon.qc_reasons
    assert reasons[0] == "kept" and len(set(reasons)) == len(reasons) and all(type(r) is str for r in reasons)


ALL_RULES = dict(qc_filter=True, conv_uv_in_situ_only=True, conv_gps_level1_only=True)


@pytest.mark.parametrize("name", SATELLITE)
def test_every_column_that_a_rule_reads_is_needed(name):
    x = columns([SATELLITE, STATION])
    del x[name]
    with rejected("quality_control"):
        halcyon.quality_control(x, **ALL_RULES)


@pytest.mark.parametrize("name", SATELLITE)
def test_columns_have_one_length(name):
    x = columns([SATELLITE, STATION])
    x[name] = x[name][:1]
    with rejected("quality_control"):
        halcyon.quality_control(x, **ALL_RULES)


def test_columns_of_rank_two_are_refused():
    with rejected("quality_control"):
        halcyon.quality_control(columns([STATION]) | dict(Pressure=torch.zeros(1, 1)))


@pytest.mark.parametrize("name", ["QC_Flag", "local_channel_id", "Observation_Type", "is_conv"])
def test_flags_and_ids_that_are_fractions_are_refused(name):
    with rejected("quality_control"):
        halcyon.quality_control(columns([STATION]) | {name: torch.tensor([0.7])}, **ALL_RULES)
