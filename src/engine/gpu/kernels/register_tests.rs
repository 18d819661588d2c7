//! What a real GPU's compiler makes of the shaders, where there is no GPU: Mesa's driver for
//! AMD compiles for a device that is not there, and tells registers and spills.

#![expect(unsafe_code, reason = "Vulkan itself: wgpu does not tell what a compiler made")]

use std::ffi::CStr;
use std::path::PathBuf;
use std::process::Command;

use ash::vk;
use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};

use super::shader_tests::with_overrides;
use super::{
    Access, BackwardSweep, Kernel, PlasticMatmul, ResidentBack, ResidentForward, WeightGradients,
};
use crate::engine::Storage;
use crate::engine::gpu::plan::Layout;
use crate::engine::gpu::shader::{Form, Source, used_overrides};
use crate::engine::gpu::tile::{SWEEP_TILE, Tile};
use crate::model::Rule;

/// RDNA 2: 256 registers an invocation at the most.
const FAMILY: &str = "navi21";

const TEST: &str = "engine::gpu::kernels::register_tests::no_kernel_spills_registers";

fn driver() -> Option<PathBuf> {
    let folder = std::fs::read_dir("/usr/share/vulkan/icd.d").ok()?;
    folder.filter_map(|entry| Some(entry.ok()?.path())).find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("radeon_icd."))
    })
}

#[test]
fn no_kernel_spills_registers() {
    if std::env::var_os("RADV_FORCE_FAMILY").is_some() {
        compile_all();
        return;
    }
    let Some(driver) = driver() else {
        println!("left out: Mesa's driver for AMD is not installed");
        return;
    };
    // in a process of its own: other tests must not meet that device
    let answer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env("VK_ICD_FILENAMES", &driver)
        .env("VK_DRIVER_FILES", &driver)
        .env("RADV_FORCE_FAMILY", FAMILY)
        .output()
        .unwrap();
    let (out, talk) =
        (String::from_utf8_lossy(&answer.stdout), String::from_utf8_lossy(&answer.stderr));
    println!("{out}");
    assert!(answer.status.success() && out.contains("kernels compiled"), "{out}{talk}");
}

fn compile_all() {
    let compiler = Compiler::new();
    let mut n_compiled = 0;
    for rule in [Rule::Decay, Rule::Modulated, Rule::Retroactive] {
        let n_traces = if rule == Rule::Retroactive { 2 } else { 1 };
        let mut show = |kernel: &Kernel, tile: Tile, what: &str| {
            for (traces, clipped) in [
                (Storage::F32, false),
                (Storage::F32, true),
                (Storage::F16, false),
                (Storage::F16, true),
            ] {
                let form = Form { traces, n_traces, tile, rule: None };
                let found = compiler.compile(kernel, form, rule, clipped);
                println!(
                    "{:16} {:11} {what:9} {traces:?}{} {:3} registers, {} spilled, {:5} bytes of workgroup \
                     memory, {:4} instructions",
                    kernel.stem,
                    rule.name(),
                    if clipped { " clip" } else { "     " },
                    found.registers,
                    found.spilled,
                    found.workgroup_bytes,
                    found.instructions
                );
                assert!(found.spilled == 0, "{} {what} {traces:?}, clip: {clipped}", kernel.stem);
                n_compiled += 1;
            }
        };
        for kernel in [&PlasticMatmul::KERNEL, &BackwardSweep::KERNEL, &WeightGradients::KERNEL] {
            show(kernel, SWEEP_TILE, "streamed");
        }
        for n in [20, 51, 100, 128] {
            let Some(Layout::Resident(tile)) = Layout::resident(n, n, n_traces as usize, 48 << 10)
            else {
                assert!(n > 100, "{n} neurons are not resident");
                continue;
            };
            let what = format!("N = {n}");
            for kernel in
                [&ResidentForward::KERNEL, &ResidentBack::KERNEL, &WeightGradients::KERNEL]
            {
                show(kernel, tile, &what);
            }
        }
    }
    println!("{n_compiled} kernels compiled for {FAMILY}");
}

/// What a compiled kernel takes.
struct Found {
    registers: u64,
    spilled: u64,
    workgroup_bytes: u64,
    instructions: u64,
}

struct Compiler {
    device: ash::Device,
    executables: ash::khr::pipeline_executable_properties::Device,
    // unloads the driver when dropped
    _entry: ash::Entry,
}

impl Compiler {
    fn new() -> Self {
        // SAFETY: the driver is the system's; every structure lives to the end of its call.
        unsafe {
            let entry = ash::Entry::load().unwrap();
            let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let instance = vk::InstanceCreateInfo::default().application_info(&application);
            let instance = entry.create_instance(&instance, None).unwrap();
            let physical = instance.enumerate_physical_devices().unwrap()[0];
            let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
            let extensions = [
                ash::khr::pipeline_executable_properties::NAME.as_ptr(),
                ash::ext::robustness2::NAME.as_ptr(),
            ];
            let mut executables =
                vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default()
                    .pipeline_executable_info(true);
            let mut robust =
                vk::PhysicalDeviceRobustness2FeaturesEXT::default().robust_buffer_access2(true);
            let features = vk::PhysicalDeviceFeatures::default().robust_buffer_access(true);
            let device = vk::DeviceCreateInfo::default()
                .queue_create_infos(&queues)
                .enabled_extension_names(&extensions)
                .enabled_features(&features)
                .push_next(&mut executables)
                .push_next(&mut robust);
            let device = instance.create_device(physical, &device, None).unwrap();
            let executables =
                ash::khr::pipeline_executable_properties::Device::new(&instance, &device);
            Compiler { device, executables, _entry: entry }
        }
    }

    /// Compiles a kernel as wgpu does for a device with robust buffers.
    fn compile(&self, kernel: &Kernel, form: Form, rule: Rule, clipped: bool) -> Found {
        let (module, info) =
            Source::compose(kernel.stem, kernel.text, &form).unwrap().module().unwrap();
        let used = used_overrides(&module);
        let number = Rule::ALL.iter().position(|&r| r == rule).unwrap();
        let clipped = f64::from(u8::from(clipped));
        let constants: Vec<_> =
            [("RULE", number as f64), ("RECURRENT", 1.0), ("CLIPPED", clipped), ("CLAMPED", 1.0)]
                .into_iter()
                .filter(|(name, _)| used.contains(*name))
                .collect();
        let (module, info) = with_overrides(&module, &info, &constants);
        let options = spv::Options {
            lang_version: (1, 5),
            flags: spv::WriterFlags::empty(),
            bounds_check_policies: BoundsCheckPolicies {
                index: BoundsCheckPolicy::Restrict,
                ..BoundsCheckPolicies::default()
            },
            zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
            force_loop_bounding: false,
            ..spv::Options::default()
        };
        let words = spv::write_vec(&module, &info, &options, None).unwrap();
        let bindings: Vec<_> = (0..)
            .zip(kernel.bindings)
            .map(|(binding, (_, access))| {
                vk::DescriptorSetLayoutBinding::default()
                    .binding(binding)
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
                    .descriptor_type(match access {
                        Access::Uniform => vk::DescriptorType::UNIFORM_BUFFER,
                        Access::Step => vk::DescriptorType::UNIFORM_BUFFER_DYNAMIC,
                        Access::Read | Access::Write => vk::DescriptorType::STORAGE_BUFFER,
                    })
            })
            .collect();
        // SAFETY: handles are this device's, the module was validated, and every structure
        // lives to the end of its call.
        let statistics = unsafe {
            let sets = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let sets = [self.device.create_descriptor_set_layout(&sets, None).unwrap()];
            let layout = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
            let layout = self.device.create_pipeline_layout(&layout, None).unwrap();
            let shader = vk::ShaderModuleCreateInfo::default().code(&words);
            let shader = self.device.create_shader_module(&shader, None).unwrap();
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(shader)
                .name(c"main");
            let pipeline = vk::ComputePipelineCreateInfo::default()
                .flags(vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR)
                .stage(stage)
                .layout(layout);
            let pipeline = self
                .device
                .create_compute_pipelines(vk::PipelineCache::null(), &[pipeline], None)
                .unwrap()[0];
            let one = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline);
            self.executables.get_pipeline_executable_statistics(&one).unwrap()
        };
        let value = |name: &CStr| {
            let of = |s: &&vk::PipelineExecutableStatisticKHR<'_>| {
                // SAFETY: the driver ends names with a zero.
                unsafe { CStr::from_ptr(s.name.as_ptr()) == name }
            };
            let found = statistics.iter().find(of).unwrap_or_else(|| panic!("no {name:?}"));
            // SAFETY: these statistics are 64-bit numbers.
            unsafe { found.value.u64 }
        };
        Found {
            registers: value(c"VGPRs"),
            spilled: value(c"Spilled VGPRs") + value(c"Spilled SGPRs"),
            workgroup_bytes: value(c"LDS size"),
            instructions: value(c"Instructions"),
        }
    }
}
