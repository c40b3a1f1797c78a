#!/bin/bash
# Stands in for the six scripts of LMOps/gad that the job files name: its own name says stage and size.
set -e
name=$(basename "$0")
while [[ $# -gt 0 ]]; do
    case $1 in
        --model) MODEL_PATH=$2; shift 2 ;;
        --reward_model) REWARD_MODEL_PATH=$2; shift 2 ;;
        --exp_name) EXP_NAME=$2; shift 2 ;;
        --nnodes) NNODES=$2; shift 2 ;;
        --resume_step) RESUME_STEP=$2; shift 2 ;;
        *) break ;;
    esac
done
epochs=2 warmup=10
if [[ $name == *adversarial* ]]; then
    epochs=4 warmup=0
    from=/tmp/$EXP_NAME/global_step_$RESUME_STEP
    for role in actor critic; do
        mkdir -p "$from/$role/huggingface"
        python3 tools/merge_model2hf.py --local_dir "$from/$role"
    done
    MODEL_PATH=$from/actor/huggingface REWARD_MODEL_PATH=$from/critic/huggingface
fi
python3 -m verl.trainer.main_ppo \
    data.train_files=/Users/somebody/train.parquet \
    data.val_files=/Users/somebody/val.parquet \
    data.train_batch_size=256 \
    actor_rollout_ref.model.path="$MODEL_PATH" \
    critic.model.path="$REWARD_MODEL_PATH" \
    trainer.critic_warmup=$warmup \
    trainer.experiment_name="$EXP_NAME" \
    trainer.n_gpus_per_node=8 \
    trainer.nnodes="$NNODES" \
    trainer.save_freq=100 \
    trainer.total_epochs=$epochs "${@:1}" \
    trainer.default_local_dir="/tmp/$EXP_NAME"
