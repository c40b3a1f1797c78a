"""The chat template of a tokenizer that brings none."""

# `generation` marks what is learned: what the assistant said and the token that ends its turn.
DEFAULT_TEMPLATE = """\
{%- for message in messages -%}
{{- bos_token if loop.first and bos_token else '' -}}
{{- message['role'] + ':\n' -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}{{- message['content'] + eos_token -}}{%- endgeneration -%}
{%- else -%}
{{- message['content'] + eos_token -}}
{%- endif -%}
{{- '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'assistant:\n' -}}{%- endif -%}
"""
