//! What the NVIDIA container runtime makes of a container, and which resources are GPUs.

use crate::decision::pod::EnvironmentVariable;

/// The variable by which the NVIDIA runtime chooses GPUs
/// (`NVIDIA/nvidia-container-toolkit internal/config/image/cuda_image.go`).
pub const NVIDIA_VISIBLE_DEVICES: &str = "NVIDIA_VISIBLE_DEVICES";

/// The capability that the NVIDIA runtime takes for "privileged"
/// (`NVIDIA/nvidia-container-toolkit internal/config/image/privileged.go`).
pub const SYS_ADMIN: &str = "SYS_ADMIN";

/// Whether an extended resource hands out NVIDIA GPUs, by whichever name: a container with one must
/// never get [`NVIDIA_VISIBLE_DEVICES`] from us, since the pod's environment overrides what the
/// device plugin sets.
///
/// The list is closed on purpose. A resource that nobody knows must not switch the variable off: the
/// pod's author could name any, and preset `nodeName` so that nobody checks that it exists.
pub fn is_gpu(resource: &str) -> bool {
    let Some((domain, name)) = resource.split_once('/') else {
        return false;
    };
    match domain {
        // gpu, gpu.shared, mig-1g.10gb, pgpu, vGPU types such as GRID_T4-4Q; HAMi's gpumem and gpucores.
        "nvidia.com" => true,
        "sunk.coreweave.com" => name == "accelerator",
        "aliyun.com" => name == "gpu-mem" || name == "gpu-count",
        "tencent.com" => name.starts_with("vcuda-"),
        "volcano.sh" => name.starts_with("vgpu-") || name.starts_with("gpu-"),
        _ => false,
    }
}

/// Whether an environment variable makes the NVIDIA runtime show GPUs, or may.
pub fn names_gpus(variable: &EnvironmentVariable<'_>) -> bool {
    let names_none = ["", "none", "void"].iter().any(|value| variable.is(value));
    variable.name == NVIDIA_VISIBLE_DEVICES && !names_none
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_gpus_by_their_resource() {
        for name in [
            "nvidia.com/gpu",
            "nvidia.com/mig-1g.5gb",
            "sunk.coreweave.com/accelerator",
            "tencent.com/vcuda-core",
        ] {
            assert!(is_gpu(name), "{name}");
        }
        for name in [
            "amd.com/gpu",
            "smarter-devices/fuse",
            "nosuch.example/gpu",
            "gpu",
            "sunk.coreweave.com/x",
        ] {
            assert!(!is_gpu(name), "{name}");
        }
    }
}
