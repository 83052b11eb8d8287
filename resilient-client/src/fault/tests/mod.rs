mod machine;
mod values;
mod wire;
