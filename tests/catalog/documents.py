"""Tables of the product documents, written out once more so that the shipped catalogue can be held against them."""

ARK_CUSTOM = ["Qwen3-0.6B", "Qwen3-8B", "Qwen3-14B", "Qwen3-32B", "Qwen2.5-72B", "GLM-4.5-Air"]
ARK_UNIT = ["Qwen2.5-0.5B", "Qwen2.5-3B", "Qwen2.5-7B", "Qwen3-8B", "Llama-3-8B"]
VERTEX = [
    *["Llama-2-7B", "Llama-2-13B", "Llama-3.1-8B", "Llama-3.1-70B", "Llama-3.2-1B", "Llama-3.2-3B"],
    *["Llama-4-Scout-17B", "Llama-4-Maverick-17B", "CodeLlama-13B"],
    *["Gemma-2-9B", "Gemma-2-27B", "Gemma-3-1B", "Gemma-3-4B", "Gemma-3-12B", "Gemma-3-27B"],
    *["Medgemma-4B", "Medgemma-27B-text"],
    *["Qwen2-1.5B", "Qwen2.5-0.5B", "Qwen2.5-1.5B", "Qwen2.5-7B", "Qwen2.5-32B"],
    *["Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-8B", "Qwen3-32B", "Qwen3-Coder-480B-A35B-Instruct"],
    *["Qwen3-Next-80B-A3B-Instruct", "Qwen3-Next-80B-A3B-Thinking"],
    *["Deepseek-R1", "Deepseek-V3", "DeepSeek-V3.1"],
    *["Mistral-7B-v0.1", "Mixtral-8x7B-v0.1", "Mistral-Nemo-Base-2407"],
    *["Phi-4-reasoning", "gpt-oss-20B", "gpt-oss-120B"],
]

TABLE_4_1 = {
    "GLM-4": (["dialogue", "long-text-reasoning", "code-generation"], ["zh", "en"]),
    "ChatGLM3": (["dialogue", "mathematical-reasoning", "code-generation"], ["zh", "en"]),
    "Baichuan": (["dialogue", "mathematical-reasoning", "code-generation", "translation"], ["zh", "en"]),
    "Llama 2": (["dialogue", "creative-writing", "summarization"], ["en"]),
    "Llama 3": (["dialogue", "creative-writing", "summarization"], ["en"]),
    "Llama 3.1": (["dialogue", "creative-writing", "summarization"], ["en"]),
    "Yi": (["code-generation", "mathematical-reasoning", "dialogue"], ["zh", "en"]),
    "Qwen 1.5": (["code-generation", "mathematical-reasoning", "dialogue"], ["en"]),
    "Qwen": (
        ["dialogue", "creative-writing", "summarization", "translation", "code-generation", "mathematical-reasoning"],
        ["zh", "en"],
    ),
    "Qwen 2": (["multilingual", "mathematical-reasoning", "dialogue"], ["en"]),
}

TABLE_6_4 = {
    # tokens/s/card: (full, lora), each (low, high); the models are those of table 6-1
    "Baichuan2-13B": ((1200, 1600), (1300, 1800)),
    "ChatGLM3-6B": ((2000, 2700), (2300, 3100)),
    "Llama2-13B": ((1300, 1800), (1400, 1900)),
    "Llama2-70B": ((300, 400), (400, 500)),
    "Llama2-7B": ((3100, 4200), (3500, 4700)),
    "Llama3-70B": ((300, 400), (300, 500)),
    "Llama3-8B": ((2100, 2800), (2300, 3100)),
    "Qwen-14B": ((1200, 1600), (1400, 1900)),
    "Qwen-72B": ((300, 400), (300, 500)),
    "Qwen-7B": ((2100, 2900), (2200, 3000)),
    "Qwen1.5-14B": ((1300, 1700), (1400, 1800)),
    "Qwen1.5-32B": ((600, 800), (700, 900)),
    "Qwen1.5-72B": ((300, 400), (300, 500)),
    "Qwen1.5-7B": ((2200, 3000), (2600, 3600)),
    "Qwen2-0.5B": ((12800, 17300), (12800, 17300)),
    "Qwen2-1.5B": ((7300, 9800), (7300, 9900)),
    "Qwen2-72B": ((300, 300), (300, 400)),
    "Qwen2-72B-1K": ((300, 300), (300, 400)),
    "Qwen2-7B": ((2300, 3200), (2600, 3500)),
}

TABLE_7_4 = {
    # minutes: (SmoothQuant-W8A8, AWQ-W4A16), each (low, high); None: not offered (table 7-2)
    "Llama2-13B": ((10, 20), (60, 60)),
    "Llama2-70B": ((40, 40), (180, 180)),
    "Llama2-7B": ((10, 20), (40, 40)),
    "Llama3-70B": ((40, 40), (180, 180)),
    "Llama3-8B": ((10, 20), (40, 40)),
    "Qwen1.5-14B": ((10, 20), (60, 60)),
    "Qwen1.5-72B": ((40, 40), (180, 180)),
    "Qwen1.5-7B": ((10, 20), (40, 40)),
    "Qwen2-72B": ((40, 40), None),
    "Qwen2-72B-1K": ((40, 40), None),
}

TABLE_8_2 = {
    "Baichuan2-13B": 1,
    "ChatGLM3-6B": 3,
    "Llama2-13B": 1,
    "Llama2-13B-AWQ": 1,
    "Llama2-13B-SQ": 1,
    "Llama2-70B": 1,
    "Llama2-70B-AWQ": 1,
    "Llama2-70B-SQ": 1,
    "Llama2-7B": 3,
    "Llama2-7B-AWQ": 3,
    "Llama2-7B-SQ": 3,
    "Llama3-70B": 1,
    "Llama3-70B-AWQ": 1,
    "Llama3-70B-SQ": 1,
    "Llama3-8B": 3,
    "Llama3-8B-AWQ": 3,
    "Llama3-8B-SQ": 6,
    "Llama3.1-70B": 1,
    "Llama3.1-8B": 3,
    "Qwen1.5-14B": 1,
    "Qwen1.5-14B-AWQ": 1,
    "Qwen1.5-14B-SQ": 1,
    "Qwen1.5-32B": 1,
    "Qwen1.5-72B": 1,
    "Qwen1.5-72B-AWQ": 1,
    "Qwen1.5-72B-SQ": 1,
    "Qwen1.5-7B": 3,
    "Qwen1.5-7B-AWQ": 3,
    "Qwen1.5-7B-SQ": 3,
    "Qwen-14B": 1,
    "Qwen2-72B": 1,
    "Qwen2-72B-AWQ": 1,
    "Qwen2-72B-SQ": 1,
    "Qwen2-72B-1K": 1,
    "Qwen2-72B-32K": 1,
    "Qwen2-7B": 3,
    "Qwen2-7B-AWQ": 3,
    "Qwen-72B": 1,
    "Qwen-7B": 3,
    "Qwen2-1.5B": 6,
    "Qwen2-0.5B": 9,
    "GLM-4-9B": 3,
    "Yi-34B": 1,
    "Yi-6B": 3,
}
SUFFIXES = {"BF16": "", "AWQ-W4A16": "-AWQ", "SmoothQuant-W8A8": "-SQ"}

ASKS_PADDING_RIGHT = ["ChatGLM3-6B", "GLM-4-9B"]
ASKS_SUPPORT_FLAGS = ["Qwen-7B", "Qwen-14B", "Qwen-72B"]

PADDING_LEFT_PY = """
        # Load from model defaults
        assert self.padding_side == "left"
        if needs_to_be_padded:
            difference = max_length - len(required_input)
            if "attention_mask" in encoded_inputs:
                encoded_inputs["attention_mask"] = [0] * difference + encoded_inputs["attention_mask"]
            if "position_ids" in encoded_inputs:
                encoded_inputs["position_ids"] = [0] * difference + encoded_inputs["position_ids"]
            encoded_inputs[self.model_input_names[0]] = [self.pad_token_id] * difference + required_input
"""
PADDING_RIGHT_PY = """
        # Load from model defaults
        # assert self.padding_side == "left"
        if needs_to_be_padded:
            difference = max_length - len(required_input)
            if "attention_mask" in encoded_inputs:
                encoded_inputs["attention_mask"] = encoded_inputs["attention_mask"] + [0] * \\
                    difference
            if "position_ids" in encoded_inputs:
                encoded_inputs["position_ids"] = encoded_inputs["position_ids"] + [0] * difference
            encoded_inputs[self.model_input_names[0]] = required_input + [self.pad_token_id] * difference
"""
