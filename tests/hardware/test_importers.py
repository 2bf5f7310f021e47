"""Readers of op tables: shapes and seconds as the tables mean them, and clear words about what is no table."""

import numpy as np
import pytest

from airi_sim.core.errors import BadInput
from airi_sim.hardware.importers import read_ops
from airi_sim.hardware.importers.devices import same_device
from tests.hardware.parts import load


def write(path, header, *rows):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def only(path, device="h100-sxm", precision="bf16", model=None, kind=None):
    found = read_ops([path], device, precision, load("model", model) if model else None)
    chosen = [one for one in found if kind is None or one.kind == kind]
    assert len(chosen) == 1, [one.kind for one in found]
    return chosen[0]


@pytest.mark.parametrize(
    ("name", "device", "same"),
    [
        ("A100-SXM-80GB", "a100-sxm-80", True),
        ("A100", "a100-sxm-80", True),
        ("H100-SXM", "h100-sxm", True),
        ("H200-SXM", "h100-sxm", False),
        ("H100-PCIe", "h100-sxm", False),
        ("L40S", "l40s", True),
        ("L4", "l40s", False),
    ],
)
def test_names_of_devices(name, device, same):
    assert same_device(name, device) == same


def test_aic_products_of_one_device_and_precision(tmp_path):
    path = write(
        tmp_path / "gemm.csv", "gpu,engine,gemm_dtype,m,n,k,latency_us",
        "H100-SXM,vllm,bfloat16,8,4096,1024,10", "H100-SXM,vllm,fp8,8,4096,1024,6", "L40S,vllm,bfloat16,8,4096,1024,20",
    )  # fmt: skip
    assert only(path).seconds.tolist() == pytest.approx([1e-5])
    assert only(path, precision="fp8").seconds.tolist() == pytest.approx([6e-6])
    assert only(path, device="l40s").seconds.tolist() == pytest.approx([2e-5])


def test_aic_attention_is_decode_or_prefill(tmp_path):
    head = (
        "gpu,engine,kernel_source,attn_dtype,kv_cache_dtype,batch_size,isl,num_heads,num_key_value_heads,head_dim,step,"
        "window_size,latency_us"
    )
    path = write(
        tmp_path / "attention.csv", head,
        "H100-SXM,vllm,fa,bfloat16,bfloat16,4,1,32,8,128,1023,,15",
        "H100-SXM,vllm,fa,bfloat16,bfloat16,2,512,32,8,128,0,0,40",
        "H100-SXM,vllm,fa,bfloat16,bfloat16,2,512,32,8,128,0,128,30",
        "H100-SXM,vllm,fa,bfloat16,fp8,2,512,32,8,128,0,0,35",
    )  # fmt: skip
    decode, prefill = only(path, kind="decode"), only(path, kind="prefill")
    assert (decode["context"].tolist(), decode["sequences"].tolist()) == ([1024], [4])
    assert (prefill["tokens"].tolist(), prefill["past"].tolist()) == ([512], [0])
    assert prefill.seconds.tolist() == pytest.approx([4e-5])


def test_sizes_of_aic_collectives_are_elements(tmp_path):
    path = write(
        tmp_path / "nccl.csv", "gpu,nccl,op_name,nccl_dtype,num_gpus,message_size,latency_us",
        "H100-SXM,2,all_reduce,half,4,1000,12", "H100-SXM,2,all_gather,half,4,1000,9",
    )  # fmt: skip
    reduce = only(path)
    assert (reduce.variant, reduce["bytes"].tolist(), reduce["ranks"].tolist()) == ("nccl", [2000], [4])


def test_vidur_projections_have_the_shapes_of_the_model_and_its_shards(tmp_path):
    model = "meta-llama/Llama-2-7b-hf"
    path = write(
        tmp_path / "mlp.csv", "gpu,model,tp,op,num_tokens,latency_us",
        f"A100,{model},2,attn_pre_proj,64,30", f"A100,{model},2,mlp_down_proj,64,20", "A100,other/x,1,add,64,2",
    )  # fmt: skip
    found = only(path, "a100-sxm-80", model="llama-2-7b", kind="gemm")
    assert sorted(zip(found["n"].tolist(), found["k"].tolist(), strict=True)) == [(4096, 5504), (6144, 4096)]
    with pytest.raises(BadInput, match=r"choose one of them with model="):
        read_ops([path], "a100-sxm-80", "bf16", load("model", "qwen3-8b"))
    with pytest.raises(BadInput, match=r"no timing of 'tpu-v5e' in bf16 .* calibrate\.device="):
        read_ops([path], "tpu-v5e")


def test_layerwise_tables_of_a_folder(tmp_path):
    layers = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj", "act_fn", "layernorm", "rotary_emb", "embedding")
    write(tmp_path / "dense.csv", "layer,tokens,time_us", *(f"{name},{n},{n}" for name in layers for n in (2, 4)))
    write(tmp_path / "per_sequence.csv", "layer,sequences,time_us", "lm_head,2,50", "sampler,2,9")
    write(
        tmp_path / "attention.csv", "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us",
        "0,0,4,100,10", "64,16,0,0,12", "64,16,4,100,30",
    )  # fmt: skip
    found = {one.kind: one for one in read_ops([tmp_path], "rtx-4090", "bf16", load("model", "llama-3.1-8b"))}
    assert sorted(found) == ["decode", "gemm", "mixed", "prefill", "small"]
    assert found["small"].seconds.tolist() == pytest.approx([8e-6, 16e-6]), "two norms, an activation, an embedding"
    assert (128256, 4096) in set(zip(found["gemm"]["n"].tolist(), found["gemm"]["k"].tolist(), strict=True))
    assert found["mixed"].seconds.tolist() == pytest.approx([3e-5])
    with pytest.raises(BadInput, match="model="):
        read_ops([tmp_path], "rtx-4090")


def test_a_path_that_holds_no_table(tmp_path):
    with pytest.raises(BadInput, match="no op table at"):
        read_ops([tmp_path / "nothing"], "h100-sxm")
    with pytest.raises(BadInput, match="of a known format"):
        read_ops([write(tmp_path / "other.csv", "a,b", "1,2")], "h100-sxm")
    head = "gpu,gemm_dtype,m,n,k,latency_us"
    with pytest.raises(BadInput, match="row 2 has 5 cells"):
        read_ops([write(tmp_path / "ragged.csv", head, "H100,bfloat16,1,2,3,4", "H100,bfloat16,1,2,3")], "h100-sxm")
    with pytest.raises(BadInput, match="not above 0"):
        read_ops([write(tmp_path / "zero.csv", head, "H100,bfloat16,8,8,8,0")], "h100-sxm")
    with pytest.raises(BadInput, match="no timing of 'b200'"):
        read_ops([write(tmp_path / "gemm.csv", head, "H100,bfloat16,8,8,8,1")], "b200")


def test_published_products_are_described_within_ten_percent(data_dir):
    from airi_sim.hardware.opfit import fit_ops

    path = data_dir / "fidelity" / "ops" / "aic_gemm.parquet"
    if not path.exists():
        pytest.skip("the op tables are not there")
    for name in ("h100-sxm", "a100-sxm-80", "l40s"):
        (fit,) = fit_ops(read_ops([path], name), load("accelerator", name), "bf16")
        assert fit.median < 0.10, (name, fit.median)
        assert np.isfinite(fit.sigma) and fit.samples > 5000
