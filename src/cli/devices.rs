//! `hebbian devices`.

use crate::cli::quietly;
use crate::engine::cpu::instructions;
use crate::engine::gpu;
use crate::error::bytes;

/// Lists the adapters that `--device gpu:INDEX` can name
#[derive(clap::Args)]
pub(super) struct Devices {
    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
}

impl Devices {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        let adapters = quietly(gpu::list);
        let threads = rayon::current_num_threads();
        let auto = adapters.iter().find(|a| !a.is_software());
        let auto = auto.map_or("cpu".to_string(), |a| format!("gpu:{}", a.index));
        if self.json {
            let list: Vec<_> = adapters
                .iter()
                .map(|a| {
                    serde_json::json!({
                        "device": format!("gpu:{}", a.index),
                        "name": a.info.name,
                        "kind": format!("{:?}", a.info.device_type),
                        "software": a.is_software(),
                        "backend": format!("{:?}", a.info.backend),
                        "driver": format!("{} {}", a.info.driver, a.info.driver_info),
                        "pci_bus": a.info.device_pci_bus_id,
                        "max_binding_bytes": a.limits.max_storage_buffer_binding_size,
                        "max_buffer_bytes": a.limits.max_buffer_size,
                        "max_invocations": a.limits.max_compute_invocations_per_workgroup,
                        "workgroup_memory_bytes": a.limits.max_compute_workgroup_storage_size,
                        "resident_neurons": gpu::resident_neurons(a),
                    })
                })
                .collect();
            let answer = serde_json::json!({
                "schema": "hebbian.devices/1",
                "auto": auto,
                "cpu": { "threads": threads, "instructions": instructions() },
                "adapters": list,
            });
            put!("{answer}");
            return Ok(0);
        }
        put!("cpu    {threads} threads, {}", instructions());
        for a in &adapters {
            put!(
                "gpu:{}  {}{} ({:?}, {} {}), bindings up to {}, buffers up to {}; plan resident up \
                 to {} neurons, else streamed",
                a.index,
                a.info.name,
                if a.is_software() { ", software" } else { "" },
                a.info.backend,
                a.info.driver,
                a.info.driver_info,
                bytes(a.limits.max_storage_buffer_binding_size),
                bytes(a.limits.max_buffer_size),
                gpu::resident_neurons(a),
            );
        }
        if adapters.is_empty() {
            put!(
                "no GPU adapter; on Debian, mesa-vulkan-drivers and libvulkan1 give one in software"
            );
        }
        put!("--device auto chooses {auto}");
        Ok(0)
    }
}
