#!/bin/bash
# Stands in for the project's script: DeepSpeed on any number of GPUs.
if [ "$#" -ne 2 ]; then echo "Usage: $0 <num_gpus> <config_file>"; exit 1; fi
accelerate launch --mixed_precision bf16 --num_machines 1 --num_processes "$1" --use_deepspeed \
    --deepspeed_config_file configs/ds_configs/stage3_no_offloading_accelerate.conf open_instruct/dpo.py "$2"
