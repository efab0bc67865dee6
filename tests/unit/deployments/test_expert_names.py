"""The names of the two experts' files, as publishers write them."""

import pytest

from deployments.expert_names import experts_named, half_named, without_expert

NAMES = {
    "Wan2.2-I2V-A14B-HighNoise-Q5_K_S": ("high", "Wan2.2-I2V-A14B-Q5_K_S"),
    "wan2.2_i2v_low_noise_14B_fp8_scaled": ("low", "wan2.2_i2v_14B_fp8_scaled"),
    "Wan2_2-I2V-A14B-HIGH_fp8_e4m3fn_scaled_KJ": ("high", "Wan2_2-I2V-A14B-fp8_e4m3fn_scaled_KJ"),
    "Wan2_2-I2V-A14B-LOW_fp8_e4m3fn_scaled_KJ": ("low", "Wan2_2-I2V-A14B-fp8_e4m3fn_scaled_KJ"),
    "wan2.2_i2v_A14b_high_noise_lora_rank64_lightx2v_4step_1022": ("high", "wan2.2_i2v_A14b_lora_rank64_lightx2v_4step_1022"),
    "style-lownoise": ("low", "style"),
    "Wan2.2_T2V_A14B_HIGHv2": ("high", "Wan2.2_T2V_A14B_v2"),
    "Wan22_LOWnoise_style": ("low", "Wan22_style"),
    "wan22_high.noise_style": ("high", "wan22_style"),
    "Wan22_LOWfp8_scaled": ("low", "Wan22_fp8_scaled"),
    "WAN22_HIGHNOISE_style": ("high", "WAN22_style"),
    "I2VLowNoise v2": ("low", "I2V v2"),
    "high_quality_low_noise": ("low", "high_quality"),
    "my slow dance high": ("high", "my slow dance"),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_expert_in_a_name_is_found_and_taken_out(name: str) -> None:
    expert, rest = NAMES[name]
    assert experts_named(name) == {expert}
    assert without_expert(name, expert) == rest


@pytest.mark.parametrize("name", ["slow motion", "highway", "lowpoly", "wan2.1_t2v_14B_bf16", "yellow", "Highlights"])
def test_other_words_name_no_expert(name: str) -> None:
    assert experts_named(name) == set()


def test_a_name_of_both_says_nothing() -> None:
    assert experts_named("wan22_high_and_low") == {"high", "low"}


WHOLE = {
    "wan2.2_t2v_high_noise_14B_fp8_scaled": "high",
    "Wan2_2-T2V-A14B-LOW_fp8": "low",
    "wan22_t2v_low": "low",
    "high_noise_model": "high",
    "wan2.1_t2v_14B_low_vram": None,
    "low_poly": None,
    "wan2.2_ti2v_5B_low_steps": None,
    "wan2.2_t2v_high_quality": None,
    "wan2.2_t2v_high_fashion": None,
    "wan2.2_t2v_high_4steps": "high",
    "wan2.2_t2v_low_step1000": "low",
    "wan22_high_fp8": "high",
    "wan22_low_scaled": "low",
    "wan22_t2v_low_rank": None,
    "wan22_t2v_low_rank64": "low",
    "wan2.2_t2v_A14b_lora_4step": None,
}


ABBREVIATED = {
    "Wan2_2-T2V-A14B_LN": ("low", "low"),
    "wan22_t2v_hn_fp8": ("high", "high"),
    "T2V_A14B_L": (None, "low"),
    "DaSiWa-WAN22-T2V-H-v2": (None, "high"),
    "wan22-i2v-Hi": (None, "high"),
    "T2V_14B_L": (None, None),
    "wan22_l_shaped_room": (None, None),
    "ink_HN": (None, None),
}
"""The experts in the names of a LoRA and of a whole model."""


@pytest.mark.parametrize("name", ABBREVIATED)
def test_a_letter_counts_for_a_whole_model_with_two_experts(name: str) -> None:
    assert (half_named(name), half_named(name, letters=True)) == ABBREVIATED[name]


@pytest.mark.parametrize("name", WHOLE)
def test_a_plain_word_counts_where_the_model_has_two_experts(name: str) -> None:
    assert half_named(name) == WHOLE[name]
