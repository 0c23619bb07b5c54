"""
The tests that transformers runs on its own models, on ours. Collected by `library_tests.py` only, which makes the
package `library` (transformers' own test files) importable.
"""

import unittest

import torch
from library.generation.test_utils import GenerationTesterMixin
from library.test_configuration_common import ConfigTester
from library.test_modeling_common import ModelTesterMixin
from transformers import GPT2Config, LlamaConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_MAPPING_NAMES

from modeling_backpack import BackpackConfig, BackpackForCausalLM, BackpackModel


# The mixin tells by these tables which classes take labels.
MODEL_MAPPING_NAMES["backpack"] = "BackpackModel"
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["backpack"] = "BackpackForCausalLM"


class Tester:
    batch_size, seq_length, is_training = 3, 7, True
    vocab_size, hidden_size, num_hidden_layers, num_attention_heads = 99, 32, 2, 4

    def __init__(self, parent, backbone, residual_gate):
        self.parent, self.backbone, self.residual_gate = parent, backbone, residual_gate

    def get_config(self):
        sizes = dict(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            max_position_embeddings=64,
            bos_token_id=98,
            eos_token_id=98,
        )
        if self.backbone == "gpt2":
            dropouts = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
            backbone = GPT2Config(**sizes, **dropouts, scale_attn_by_inverse_layer_idx=True)
        else:
            backbone = LlamaConfig(**sizes, intermediate_size=37, num_key_value_heads=2)
        return BackpackConfig(
            backbone_config=backbone,
            num_senses=4,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
            residual_gate=self.residual_gate,
            lm_head_bias=self.residual_gate,
        )

    def prepare_config_and_inputs_for_common(self):
        input_ids = torch.randint(1, self.vocab_size, (self.batch_size, self.seq_length))
        return self.get_config(), {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


class ModelCases(ModelTesterMixin, GenerationTesterMixin):
    all_model_classes = (BackpackModel, BackpackForCausalLM)
    test_can_init_all_missing_weights_before_2023 = True
    residual_gate = False

    def setUp(self):
        self.model_tester = Tester(self, self.backbone, self.residual_gate)
        self.config_tester = ConfigTester(
            self, config_class=BackpackConfig, common_properties=["hidden_size", "num_hidden_layers"], num_senses=4
        )

    def test_config(self):
        self.config_tester.run_common_tests()


class BackpackOnGPT2Test(ModelCases, unittest.TestCase):
    backbone = "gpt2"


class BackpackOnLlamaTest(ModelCases, unittest.TestCase):
    backbone = "llama"

    def setUp(self):
        if self._testMethodName.startswith("test_model_rope_scaling_from_config"):
            self.skipTest("Reads past the backbone's positions, which a Backpack refuses")
        super().setUp()


class GatedBackpackOnLlamaTest(BackpackOnLlamaTest):
    """Senses of a language model with a head of its own, untied and with a bias."""

    residual_gate = True
