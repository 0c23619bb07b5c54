# Copyright 2026 The SENSIA authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Backpack language models for transformers: importing this package registers them with the Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from .configuration_backpack import BackpackConfig
from .conversion_backpack import is_published_layout
from .modeling_backpack import (
    BackpackCausalLMOutputWithPast,
    BackpackForCausalLM,
    BackpackForSequenceClassification,
    BackpackModel,
    BackpackModelOutputWithPast,
    BackpackPreTrainedModel,
)


AutoConfig.register("backpack", BackpackConfig, exist_ok=True)
AutoModel.register(BackpackConfig, BackpackModel, exist_ok=True)
AutoModelForCausalLM.register(BackpackConfig, BackpackForCausalLM, exist_ok=True)
AutoModelForSequenceClassification.register(BackpackConfig, BackpackForSequenceClassification, exist_ok=True)
BackpackConfig.register_for_auto_class()
BackpackModel.register_for_auto_class("AutoModel")
BackpackForCausalLM.register_for_auto_class("AutoModelForCausalLM")
BackpackForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")

__all__ = [
    "BackpackCausalLMOutputWithPast",
    "BackpackConfig",
    "BackpackForCausalLM",
    "BackpackForSequenceClassification",
    "BackpackModel",
    "BackpackModelOutputWithPast",
    "BackpackPreTrainedModel",
    "is_published_layout",
]
